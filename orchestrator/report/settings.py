"""Settings: what the trials of a table have in common but for the seed, and which of them are on the front."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.bins import MOST_BINS
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.rows import equals, hashable, numbers
from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.report.bounds import within
from orchestrator.report.plain import encoded, plain, plains
from orchestrator.report.source import Source
from orchestrator.spec.leaves import optional_paths
from orchestrator.spec.model import Distribution

MOST_DRAWN = 1500
"""Settings drawn one by one, those on the front first; beyond, the others are counted on a raster."""

RASTER = (48, 32)
MOST_PAIRS = 10

USUAL = (
    "accuracy", "val_accuracy", "compression", "wall_time_s", "latency_ms", "labels", "packed_bytes", "macs", "bops",
    "accuracy_drop",
)  # fmt: skip
"""Columns worth an axis of a picture, if the trials differ in them; the objectives come first."""

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Sampled:
    """Between which numbers an axis was drawn, and whether evenly in log."""

    low: float = math.inf
    high: float = -math.inf
    log: bool | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a table.

    `axes` are the config columns in which the cells differ, after `study` where there are several; `sampled` those of
    them whose values were drawn, and not listed. `number` is the setting of each trial, shape (trials,). `table` has a
    row for each setting, by number: its `role`, `baseline` and config, the mean of each of `measured` over its complete
    trials and `<column>_std` (n - 1 in the denominator), `n_seeds` and `front`. `left_out` counts the trials that could
    not be compared, by reason.
    """

    axes: tuple[str, ...]
    sampled: Mapping[str, Sampled]
    measured: tuple[str, ...]
    number: Ints
    table: pd.DataFrame
    left_out: dict[str, int]

    @property
    def on_front(self) -> Ints:
        """Numbers of the settings on the front."""
        return np.flatnonzero(self.table["front"].to_numpy())


def settings_of(source: Source, objectives: Sequence[Objective]) -> Settings:
    """The settings of the trials, and the front of their means over the seeds, chosen as the sweep itself does it.

    Raises:
        TableError: the objectives cannot be compared.

    """
    trials = source.trials
    axes, measured = axes_of(source), _measured(trials, objectives)
    keys = ["study", "role", "baseline", *_varied(trials, dropna=True)]
    values = pd.DataFrame({name: hashable(trials[name]) for name in keys}, index=trials.index)
    number = values.groupby(keys, dropna=False, sort=False).ngroup().to_numpy(dtype=np.int64)
    complete = equals(trials, "status", "complete")
    table = values.loc[~pd.Series(number).duplicated().to_numpy()].reset_index(drop=True)
    table = table.join(_statistics(trials.loc[complete], number[complete], measured, len(table)))
    kept = within(trials, source.study.where)
    front = kept.pareto.front(tuple(objectives), over=source.study.over, seeds=source.study.seeds)
    table["front"] = _members(table, front, keys)
    return Settings(
        axes, _sampled(source, axes, table), measured, number, table, dict(front.attrs.get("left_out_because", {}))
    )


def axes_of(source: Source) -> tuple[str, ...]:
    """The config columns in which the cells differ: those the study declares, else all that others do not settle.

    A null is a value of its own only in a leaf that may be null; elsewhere it says that the leaf had no effect.
    """
    cells = source.trials.loc[source.trials["role"] == "cell"]
    varied = _varied(cells)
    several = ["study"] if cells["study"].nunique() > 1 else []
    if source.study.spec is not None:
        declared = [axis.path for axis in source.study.spec.all_axes]
        chosen = [name for path in declared for name in varied if name == path or name.startswith(f"{path}.")]
        return tuple(dict.fromkeys([*several, *chosen]))
    found = [*several]
    for name in sorted(varied, key=lambda name: -cells[name].nunique(dropna=False)):
        settled = any(cells.groupby(other, dropna=False)[name].nunique(dropna=False).max() == 1 for other in found)
        found += [] if settled else [name]
    return tuple(name for name in (*several, *varied) if name in found)


def _sampled(source: Source, axes: Sequence[str], table: pd.DataFrame) -> dict[str, Sampled]:
    """The axes whose values were drawn: as the study says, else those whose numbers hardly ever come back."""
    if source.study.spec is not None:
        drawn = {axis.path: axis.values for axis in source.study.spec.all_axes if isinstance(axis.values, Distribution)}
        return {
            name: Sampled(one.low, one.high, one.kind == "loguniform") for name, one in drawn.items() if name in axes
        }
    cells = table.loc[table["role"] == "cell"]
    return {
        name: Sampled() for name in axes
        if pd.api.types.is_float_dtype(cells[name].dtype) and cells[name].nunique() > max(MOST_BINS, len(cells) / 2)
    }  # fmt: skip


def _varied(trials: pd.DataFrame, *, dropna: bool | None = None) -> list[str]:
    """Config columns with two values or more; `dropna=True` counts a null as one in every column."""
    optional = optional_paths()
    leaves = [str(name) for name in trials.columns if is_config_column(str(name))]
    return [
        name for name in leaves
        if hashable(trials[name]).nunique(dropna=dropna is None and name not in optional) > 1
    ]  # fmt: skip


def _measured(trials: pd.DataFrame, objectives: Sequence[Objective]) -> tuple[str, ...]:
    wanted = [one.column for one in objectives]
    usual = [name for name in USUAL if name in trials.columns and trials[name].nunique() > 1]
    return tuple(dict.fromkeys([*wanted, *usual]))


def _statistics(trials: pd.DataFrame, number: Ints, measured: Sequence[str], settings: int) -> pd.DataFrame:
    values = pd.DataFrame({name: numbers(trials, name) for name in measured}).replace([np.inf, -np.inf], np.nan)
    groups = values.groupby(number)
    parts = [groups.mean(), groups.std().add_suffix("_std"), groups.size().rename("n_seeds")]
    return pd.concat(parts, axis=1).reindex(range(settings))


def _members(table: pd.DataFrame, front: pd.DataFrame, keys: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which settings are rows of `front`; nulls are equal to each other."""
    absent = [name for name in keys if name not in front.columns]
    found = front.assign(**dict.fromkeys(absent)) if absent else front
    both = pd.concat([table[list(keys)], found[list(keys)]], ignore_index=True)
    codes = both.groupby(list(keys), dropna=False, sort=False).ngroup().to_numpy()
    return np.isin(codes[: len(table)], codes[len(table) :])


def drawn(settings: Settings) -> Ints:
    """Numbers of the settings that are drawn one by one, ascending: the front, baselines, and others evenly."""
    table = settings.table
    known = table[list(settings.measured)].notna().any(axis=1).to_numpy()
    front = settings.on_front[:MOST_DRAWN]
    baselines = np.flatnonzero(known & (table["role"] == "baseline").to_numpy())
    baselines = evenly(baselines, MOST_DRAWN // 10)
    rest = np.setdiff1d(np.flatnonzero(known & (table["role"] == "cell").to_numpy()), front)
    return np.sort(np.concatenate([front, baselines, evenly(rest, MOST_DRAWN - len(front))]))


def evenly(numbers: Ints, most: int) -> Ints:
    """At most so many of them, at equal distances."""
    if len(numbers) <= most:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, max(most, 0)).astype(np.int64)]


def points(settings: Settings, numbers: Ints, position: Ints) -> dict[str, Any]:
    """The settings to draw, column by column; `position` is the place of each trial in the report's table, or -1."""
    table = settings.table.loc[numbers]
    places = np.searchsorted(numbers, settings.number)
    rows: list[list[int]] = [[] for _ in numbers]
    for trial in np.flatnonzero((position >= 0) & np.isin(settings.number, numbers)):
        rows[places[trial]].append(int(position[trial]))
    return {
        "role": encoded(table["role"]),
        "baseline": encoded(table["baseline"]),
        "front": [int(one) for one in table["front"]],
        "seeds": plains(table["n_seeds"]),
        "config": {name: encoded(table[name]) for name in settings.axes},
        "mean": {name: plains(table[name]) for name in settings.measured},
        "std": {name: plains(table[f"{name}_std"]) for name in settings.measured},
        "rows": rows,
        "of": int((settings.table["role"] == "cell").sum()),
    }


def rasters(settings: Settings, objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """For each pair of objectives how many settings lie where, if there are more than can be drawn."""
    cells = settings.table.loc[settings.table["role"] == "cell"]
    if len(cells) <= MOST_DRAWN:
        return []
    found: list[dict[str, Any]] = []
    for x, y in pairs(objectives, settings.measured):
        both = cells[[x, y]].dropna().to_numpy(dtype=np.float64)
        if len(both):
            counts, across, up = np.histogram2d(both[:, 0], both[:, 1], bins=RASTER)
            found.append({"x": x, "y": y, "xs": _middles(across), "ys": _middles(up), "counts": counts.T.tolist()})
    return found


def _middles(edges: npt.NDArray[np.float64]) -> list[Any]:
    return [plain(middle) for middle in (edges[1:] + edges[:-1]) / 2]


def pairs(objectives: Sequence[Objective], measured: Sequence[str]) -> list[tuple[str, str]]:
    """(across, up) of each projection: a single objective is shown against another column."""
    names = [one.column for one in objectives]
    if len(names) == 1:
        names += [name for name in measured if name not in names][:1]
    return [(second, first) for first, second in combinations(names, 2)][:MOST_PAIRS]


def unit(name: str) -> str:
    """The unit of a column, empty where it has none."""
    known = COLUMNS[name].unit if name in COLUMNS else ""
    return "" if known == "1" else known
