"""What the seeds of one cell have in common."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

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
    table = pd.DataFrame({name: _hashable(df[name]) for name in keys}, index=df.index)
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


def numbers(df: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """A column as float64, shape (rows,), NaN for null.

    Raises:
        TableError: the column holds something else than numbers.

    """
    try:
        return df[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        msg = f"column {name!r} holds {df[name].dtype}, not numbers, and cannot be compared"
        raise TableError(msg) from error


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


def _hashable(column: pd.Series) -> pd.Series:
    """Lists as tuples, so that they can be grouped."""
    if not pd.api.types.is_object_dtype(column.dtype):
        return column
    return column.map(lambda value: tuple(value) if isinstance(value, (list, np.ndarray)) else value)
