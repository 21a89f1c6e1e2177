"""What the seeds of one cell have in common."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from orchestrator.analysis.rows import Floats, hashable, numbers
from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.errors import TableError

_INTERVAL = ("accuracy_low", "accuracy_high")


def mean_over_seeds(df: pd.DataFrame, reported: Sequence[str], *, over: str = "seed") -> pd.DataFrame:
    """One row per cell, in order of first appearance: the mean over its seeds.

    Rows belong to one cell if they share study, role, baseline and every config column. The columns in `reported` get
    a mean and `<column>_std` (n - 1 in the denominator; NaN for one seed), other measured columns a mean over the
    seeds that have a value; `n_seeds` counts the rows. What belongs to a single trial (its id, keys, binomial interval,
    time of day) is left out.

    Raises:
        TableError: `over` is not "seed", `df` has no seeds or no config columns, or a seed occurs twice in a cell.

    """
    keys = [name for name in df.columns if name in ("study", "role", "baseline") or is_config_column(name)]
    if over != "seed":
        msg = f"over={over!r} is not supported; valid is 'seed'"
        raise TableError(msg)
    if "seed" not in df.columns or not any(is_config_column(name) for name in keys):
        msg = "over='seed' needs the column seed and the config columns, which tell cells apart: load all columns"
        raise TableError(msg)
    table = pd.DataFrame({name: hashable(df[name]) for name in keys}, index=df.index)
    _check_seeds(table.assign(seed=df["seed"]))
    measured = [name for name in df.columns if name in reported or _is_averaged(name)]
    values = pd.DataFrame({name: numbers(df, name) for name in measured}, index=df.index)
    groups = pd.concat([table, values.drop(columns=keys, errors="ignore")], axis=1)
    return _means(groups, keys, list(reported), measured)


def _means(table: pd.DataFrame, keys: list[str], reported: list[str], measured: list[str]) -> pd.DataFrame:
    groups = table.groupby(keys, dropna=False, sort=False)
    others = [name for name in measured if name not in reported]
    varied = [name for name in reported if name not in keys]
    with np.errstate(invalid="ignore"):  # the spread of infinite values is undefined
        parts = [groups.size().rename("n_seeds"), groups[varied].mean(), groups[varied].std().add_suffix("_std")]
    return pd.concat([*parts, groups[others].mean()], axis=1).reset_index()


def _check_seeds(table: pd.DataFrame) -> None:
    twice = table.duplicated()
    if twice.any():
        msg = (
            f"over='seed': seed {table.loc[twice, 'seed'].iloc[0]} occurs twice in one cell, so that cells cannot be "
            "told apart; load study, role, baseline and all config columns"
        )
        raise TableError(msg)


def _is_averaged(name: str) -> bool:
    return name in COLUMNS and COLUMNS[name].direction is not None and name not in _INTERVAL


def mean_and_interval(values: Floats, confidence: float) -> dict[str, float]:
    """`mean`, `std` (n - 1 in the denominator), `n`, and `low` and `high` of Student's interval of the mean.

    mean -+ t std / sqrt(n) with t the two-sided quantile at n - 1 degrees of freedom: normal errors are assumed, and
    the ends may leave the range of the values. One value has neither spread nor interval (NaN), no value no mean.
    The result does not depend on the order of the values.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return {"mean": mean, "std": math.nan, "n": n, "low": math.nan, "high": math.nan}
    std = math.sqrt(math.fsum((values - mean) ** 2) / (n - 1))
    half = t_quantile(confidence, n - 1) * std / math.sqrt(n)
    return {"mean": mean, "std": std, "n": n, "low": mean - half, "high": mean + half}


def t_quantile(confidence: float, freedom: int) -> float:
    """The t >= 0 with P(-t < T < t) = confidence for Student's T of `freedom` degrees of freedom.

    The probability is a finite sum in theta = atan(t / sqrt(freedom)) (Abramowitz and Stegun, 26.7.3 and 26.7.4), which
    grows with theta: its inverse is found by bisection.

    Raises:
        TableError: the confidence is not inside (0, 1).

    """
    if not 0 < confidence < 1:
        msg = f"confidence {confidence!r} must lie between 0 and 1, as 0.95 does"
        raise TableError(msg)
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _t_probability(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _t_probability(theta: float, freedom: int) -> float:
    """P(-t < T < t) at t = sqrt(freedom) tan(theta)."""
    odd = freedom % 2
    term, total = (math.cos(theta) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total
