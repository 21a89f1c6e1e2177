"""Learning curves over labels, and training curves over epochs."""

from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.points import STRATEGY
from orchestrator.analysis.rows import equals
from orchestrator.errors import TableError
from orchestrator.report.plain import plain, plains
from orchestrator.report.settings import Settings
from orchestrator.report.source import Source

MOST_LINES = 24
"""Training curves drawn one by one, those of the front first."""

MOST_EPOCHS = 200
QUANTILES = (0.1, 0.5, 0.9)
MEASURED = ("val_accuracy", "loss")


def labelling(trials: pd.DataFrame) -> dict[str, Any]:
    """The learning curves of `df.al.curve()`: mean accuracy and Student's 95 % interval at each number of labels."""
    if "select.strategy" not in trials.columns or not trials["select.strategy"].notna().any():
        return {"why": "No trial of this study chooses its labels (section select)."}
    try:
        table: pd.DataFrame = trials.al.curve("accuracy")
    except TableError as error:
        return {"why": f"No curve can be drawn: {error}"}
    names = [str(name) for name in table.columns[: list(table.columns).index("labels")]]
    lines = [
        {
            "strategy": plain(rows[STRATEGY].iloc[0]),
            "leaves": {name: plain(rows[name].iloc[0]) for name in names if name != STRATEGY},
            **{name: plains(rows[name]) for name in ("labels", "mean", "low", "high", "n")},
        }
        for _, rows in table.groupby(names, dropna=False, sort=False)
    ]
    return {"lines": lines} if lines else {"why": "No row of a curve is complete yet."}


def training(source: Source, settings: Settings) -> dict[str, Any]:
    """By kind of stage: median and 10 to 90 % of all stages at each epoch, and single ones, the front's first."""
    if isinstance(source.history, str):
        return {"why": source.history}
    epochs = source.history.loc[source.history["epoch"].notna()]
    if epochs.empty:
        return {"why": "No stage has been trained to the end of an epoch yet."}
    kinds = [kind for kind in ("train", "compress") if (epochs["stage"] == kind).any()]
    return {"kinds": [_kind(kind, epochs.loc[epochs["stage"] == kind], source, settings) for kind in kinds]}


def _kind(kind: str, epochs: pd.DataFrame, source: Source, settings: Settings) -> dict[str, Any]:
    epochs = _thinned(epochs)
    found: dict[str, Any] = {"kind": kind, "stages": int(epochs["key"].nunique())}
    for name in MEASURED:
        spread = epochs.groupby("epoch")[name].quantile(np.array(QUANTILES)).unstack()
        found[name] = {"epoch": plains(spread.index), **{f"q{i}": plains(spread[q]) for i, q in enumerate(QUANTILES)}}
    shown = _shown(kind, epochs, source, settings)
    chosen = epochs.loc[epochs["key"].isin(list(shown))]
    found["lines"] = [
        {"trial": shown[str(key)], "epoch": plains(rows["epoch"]), **{name: plains(rows[name]) for name in MEASURED}}
        for key, rows in chosen.groupby("key", sort=False)
    ]
    return found


def _thinned(epochs: pd.DataFrame) -> pd.DataFrame:
    """Without most epochs of long trainings; the first and the last stay."""
    last = int(epochs["epoch"].max())
    if last <= MOST_EPOCHS:
        return epochs
    return epochs.loc[epochs["epoch"].isin(np.unique(np.linspace(1, last, MOST_EPOCHS).astype(np.int64)))]


def _shown(kind: str, epochs: pd.DataFrame, source: Source, settings: Settings) -> dict[str, str]:
    """Stage key -> a trial that has it, for the stages to draw one by one."""
    column = f"stage_keys.{kind}"
    if column not in source.trials.columns:
        return {}
    there = source.trials[column].isin(epochs["key"].unique()).to_numpy()
    front = np.isin(settings.number, settings.on_front)
    wish = np.where(front, 0, np.where(equals(source.trials, "role", "cell"), 1, 2))
    trials = source.trials.assign(wish=wish).loc[there].sort_values("wish", kind="stable")
    first = trials.drop_duplicates(column).head(MOST_LINES)
    return dict(zip(first[column].astype(str), first["trial_id"].astype(str), strict=True))
