"""Columns of a table of trials as arrays, and which of its rows can be compared."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.tables import suggestion
from orchestrator.errors import TableError

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def need(df: pd.DataFrame, names: Sequence[str]) -> None:
    """Nothing where all columns are there.

    Raises:
        TableError: one is absent.

    """
    for name in names:
        if name not in df.columns:
            near = suggestion(name, [str(column) for column in df.columns])
            msg = f"the frame has no column {name!r}{near or '; load it too'}"
            raise TableError(msg)


def numbers(df: pd.DataFrame, name: str) -> Floats:
    """A column as float64, shape (rows,), NaN for null.

    Raises:
        TableError: the column holds something else than numbers.

    """
    try:
        return df[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        msg = f"column {name!r} holds {df[name].dtype}, not numbers, and cannot be compared"
        raise TableError(msg) from error


def equals(df: pd.DataFrame, name: str, value: str | bool) -> Mask:
    """Where a column has a value; everywhere if the column is absent, nowhere at null."""
    if name not in df.columns:
        return np.ones(len(df), dtype=np.bool_)
    return df[name].eq(value).to_numpy(dtype=np.bool_, na_value=False)


def commonest_place(df: pd.DataFrame, keep: Mask, clock: Sequence[str]) -> Mask:
    """The rows that were timed where most rows in `keep` were, as the columns of `clock` say.

    Of places that are equally common the first in the order of the values counts, not of the rows.
    """
    where = [name for name in clock if name in df.columns]
    if not where or not keep.any():
        return keep
    places = df[where].groupby(where, dropna=False, sort=True).ngroup().to_numpy()
    return places == np.bincount(places[keep]).argmax()


def hashable(column: pd.Series) -> pd.Series:
    """Lists as tuples, so that they can be grouped."""
    if not pd.api.types.is_object_dtype(column.dtype):
        return column
    return column.map(lambda value: tuple(value) if isinstance(value, (list, np.ndarray)) else value)
