"""The bounds of a study's search, applied to its table: which settings an acceptable front is made of."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from orchestrator.analysis.repeats import cell_numbers
from orchestrator.analysis.rows import numbers
from orchestrator.spec.model import Constraint


def within(trials: pd.DataFrame, where: Sequence[Constraint]) -> pd.DataFrame:
    """The rows of settings whose mean over the seeds keeps all bounds; all rows where there are no bounds.

    Raises:
        TableError: as `cell_numbers`.

    """
    if not where:
        return trials
    means = _means(trials, where)
    kept = [(_sign(one) * (means[one.column] - one.bound) >= 0).to_numpy() for one in where]
    return trials.loc[np.logical_and.reduce(kept)]


def nearest(trials: pd.DataFrame, where: Sequence[Constraint]) -> str:
    """How near the settings come to each bound: `val_accuracy 0.43`; empty where no setting has a value."""
    means = _means(trials, where)[(trials["role"] == "cell").to_numpy()].dropna()
    if means.empty:
        return ""
    best = {one.column: means[one.column].max() if one.sense == ">=" else means[one.column].min() for one in where}
    return ", ".join(f"{name} {value:.4g}" for name, value in best.items())


def _means(trials: pd.DataFrame, where: Sequence[Constraint]) -> pd.DataFrame:
    """Of each bounded column, for each row, over the complete seeds of its setting."""
    values = pd.DataFrame(index=trials.index)
    for one in where:
        values[one.column] = numbers(trials, one.column) if one.column in trials.columns else np.nan
    return values.groupby(cell_numbers(trials)).transform("mean")


def _sign(bound: Constraint) -> int:
    return 1 if bound.sense == ">=" else -1
