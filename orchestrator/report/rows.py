"""The trials that the report's table holds, column by column."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.rows import hashable
from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.report.plain import encoded, plain
from orchestrator.report.settings import Ints, Settings, evenly

MOST_ROWS = 5000
"""Rows beside those of the front."""

MOST_OF_FRONT = 4000
_FAILED_FIRST = 500


def chosen(trials: pd.DataFrame, settings: Settings, drawn: Ints) -> Ints:
    """Positions of the rows in the table, ascending: the front, failed trials, what is drawn, others evenly."""
    everything = np.arange(len(trials))
    on_front = np.isin(settings.number, settings.on_front)
    failed = trials["status"].isin(["failed", "infeasible"]).to_numpy()
    wishes = (failed, np.isin(settings.number, drawn), np.ones(len(trials), dtype=np.bool_))
    taken = on_front.copy()
    taken[everything[on_front][MOST_OF_FRONT:]] = False
    room = MOST_ROWS
    for place, wish in enumerate(wishes):
        most = min(room, _FAILED_FIRST) if place == 0 and len(trials) > MOST_ROWS else room
        more = evenly(everything[wish & ~taken], most)
        taken[more] = True
        room -= len(more)
    return everything[taken]


def rows(trials: pd.DataFrame, settings: Settings, positions: Ints) -> dict[str, Any]:
    """Every column of these rows; one that is the same in all of them stands once, under `constant`."""
    table = trials.iloc[positions]
    on_front = np.isin(settings.number, settings.on_front)[positions]
    constant: dict[str, Any] = {}
    columns: dict[str, Any] = {"front": encoded(pd.Series(np.where(on_front, "yes", "no")))}
    for name in map(str, trials.columns):
        column = hashable(table[name])
        # The identity is asked for by name and stays a column, be it ever so constant.
        if name in ("trial_id", "seed", "status", "role") or column.nunique(dropna=False) > 1:
            columns[name] = encoded(column)
        else:
            constant[name] = plain(column.iloc[0]) if len(column) else None
    return {"n": len(table), "columns": columns, "constant": constant}


def described(trials: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How each column is measured: unit, better direction, whether it is equal in every run, and what it says."""
    found: dict[str, dict[str, Any]] = {}
    for name in map(str, trials.columns):
        if name in COLUMNS:
            column = COLUMNS[name]
            found[name] = {
                "unit": column.unit, "better": column.direction, "deterministic": column.deterministic,
                "doc": column.doc,
            }  # fmt: skip
        elif is_config_column(name):
            doc = "leaf of the config, as resolved; `orchestrator schema` lists its bounds"
            found[name] = {"unit": "", "better": None, "deterministic": True, "doc": doc, "config": True}
        else:
            doc = "not in the column table of this version"
            found[name] = {"unit": "", "better": None, "deterministic": None, "doc": doc}
    return found


def first_shown(trials: pd.DataFrame, axes: Sequence[str], measured: Sequence[str]) -> list[str]:
    """Columns that the table shows at first."""
    wanted = ["trial_id", "front", "role", "baseline", "seed", "status", *axes, *measured]
    return [name for name in wanted if name == "front" or (name in trials.columns and trials[name].notna().any())]
