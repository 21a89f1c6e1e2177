"""What the seeds of one cell have in common."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.bootstrap import mean_interval
from orchestrator.analysis.rows import Floats, hashable, numbers
from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.errors import TableError

Positions = npt.NDArray[np.intp]

INTERVALS = ("t_low", "t_high", "bootstrap_low", "bootstrap_high")
_OF_ONE_TRIAL = ("accuracy_low", "accuracy_high")


def mean_over_seeds(df: pd.DataFrame, reported: Sequence[str], *, cells: Positions | None = None) -> pd.DataFrame:
    """One row per cell, in order of first appearance: the mean over its seeds.

    Rows belong to one cell if they share study, role, baseline and every config column. The columns in `reported` get
    a mean and `<column>_std` (n - 1 in the denominator; NaN for one seed), other measured columns a mean over the
    seeds that have a value; `n_seeds` counts the rows. What belongs to a single trial (its id, keys, binomial interval,
    time of day) is left out. `cells` is what `cell_numbers` gives for `df`, where it is known already.

    Raises:
        TableError: `df` has no seeds or no config columns, or a seed occurs twice in a cell.

    """
    keys, cells = cell_keys(df), cell_numbers(df) if cells is None else cells
    _check_seeds(df, cells)
    measured = [name for name in df.columns if (name in reported or _is_averaged(name)) and name not in keys]
    values = pd.DataFrame({name: numbers(df, name) for name in measured})
    first = np.unique(cells, return_index=True)[1]
    table = pd.DataFrame({name: hashable(df[name]).iloc[first].reset_index(drop=True) for name in keys})
    for name in (name for name in keys if name in reported):
        table[name] = numbers(table, name)
    return pd.concat([table, _means(values, cells, [name for name in reported if name not in keys])], axis=1)


def cell_numbers(df: pd.DataFrame) -> Positions:
    """The cell of each row, as its position in what `mean_over_seeds` gives.

    Raises:
        TableError: as `mean_over_seeds`.

    """
    keys = cell_keys(df)
    if "seed" not in df.columns or not any(is_config_column(name) for name in keys):
        msg = "over='seed' needs the column seed and the config columns, which tell cells apart: load all columns"
        raise TableError(msg)
    # A column of one value tells nothing apart, and grouping by it costs as much as by any other.
    table = pd.DataFrame({name: hashable(df[name]) for name in keys})
    telling = [name for name in keys if table[name].nunique(dropna=False) > 1] or keys[:1]
    return np.asarray(table.groupby(telling, dropna=False, sort=False).ngroup(), dtype=np.intp)


def cell_keys(df: pd.DataFrame) -> list[str]:
    """The columns in which the rows of one cell agree."""
    return [name for name in df.columns if name in ("study", "role", "baseline") or is_config_column(name)]


def _means(values: pd.DataFrame, cells: Positions, reported: Sequence[str]) -> pd.DataFrame:
    groups = values.groupby(cells)
    others = [name for name in values.columns if name not in reported]
    with np.errstate(invalid="ignore"):  # the spread of infinite values is undefined
        spread = groups[list(reported)].std().add_suffix("_std")
        parts = [groups.size().rename("n_seeds"), groups[list(reported)].mean(), spread, groups[others].mean()]
    return pd.concat(parts, axis=1)


def _check_seeds(df: pd.DataFrame, cells: Positions) -> None:
    twice = pd.DataFrame({"cell": cells, "seed": df["seed"].to_numpy()}).duplicated().to_numpy()
    if twice.any():
        msg = (
            f"over='seed': seed {df['seed'].iloc[int(twice.argmax())]} occurs twice in one cell, so that cells cannot "
            "be told apart; load study, role, baseline and all config columns"
        )
        raise TableError(msg)


def _is_averaged(name: str) -> bool:
    return name in COLUMNS and COLUMNS[name].direction is not None and name not in _OF_ONE_TRIAL


def with_intervals(
    cells: pd.DataFrame, df: pd.DataFrame, part: Positions, reported: Sequence[str], confidence: float
) -> pd.DataFrame:
    """Cells with two intervals of the mean of each column in `reported`.

    `<column>_t_low` and `<column>_t_high` are Student's, see `mean_and_interval`: wide with few seeds, and they may
    leave the range of the values. `<column>_bootstrap_low` and `<column>_bootstrap_high` are percentiles of the
    bootstrap, see `bootstrap.mean_interval`. One seed has neither (NaN), and so has a cell with an infinite value.

    Args:
        cells: rows of what `mean_over_seeds` gives.
        df: the rows that the means were taken of.
        part: for each row of `df` the position in `cells` of its cell, or -1.
        reported: columns of numbers; those that do not vary over seeds are passed over.
        confidence: between 0 and 1.

    Raises:
        TableError: the confidence is not inside (0, 1).

    """
    spread = [name for name in reported if f"{name}_std" in cells.columns]
    values = repeats_of(df, part, spread, len(cells))
    ends: dict[str, Floats] = {}
    for i, name in enumerate(spread):
        found = _intervals(values[..., i], confidence)
        ends |= {f"{name}_{kind}": found[:, k] for k, kind in enumerate(INTERVALS)}
    widened = pd.concat([cells, pd.DataFrame(ends, index=cells.index)], axis=1)
    widened.attrs = cells.attrs
    return widened


def repeats_of(df: pd.DataFrame, part: Positions, columns: Sequence[str], cells: int) -> Floats:
    """The values of cells seed by seed, shape (cells, most seeds, columns).

    The seeds of a cell ascend; NaN fills up cells with fewer seeds. `part` says which cell each row of `df` belongs to,
    -1 for none.
    """
    rows = np.flatnonzero(part >= 0)
    rows = rows[np.lexsort((df["seed"].to_numpy()[rows], part[rows]))]
    target = part[rows]
    turn = np.arange(len(rows)) - np.searchsorted(target, target)
    values = np.full((cells, int(turn.max(initial=0)) + 1, len(columns)), np.nan)
    for i, name in enumerate(columns):
        values[target, turn, i] = numbers(df, name)[rows]
    return values


def _intervals(values: Floats, confidence: float) -> Floats:
    """Ends of Student's and of the bootstrap's interval, shape (cells, 4), of values of shape (cells, seeds)."""
    found = np.full((len(values), 4), np.nan)
    values, seeds = np.sort(values, axis=1), (~np.isnan(values)).sum(axis=1)  # NaN goes to the end
    for n in np.unique(seeds[seeds > 1]).tolist():
        own = values[seeds == n, :n]
        with np.errstate(invalid="ignore"):
            half = t_quantile(confidence, n - 1) * own.std(axis=1, ddof=1) / math.sqrt(n)
            mean = own.mean(axis=1)
            t_ends = [
                np.where(np.isfinite(half), mean - half, np.nan),
                np.where(np.isfinite(half), mean + half, np.nan),
            ]
        found[seeds == n] = np.stack([*t_ends, *mean_interval(own, confidence)], axis=1)
    return found


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
