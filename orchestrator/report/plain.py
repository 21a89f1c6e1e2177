"""Values of a table as JSON has them: no NaN, no infinities, real numbers in as many digits as are told apart."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

DIGITS = 7


def plain(value: Any) -> Any:
    """One value: null for what is missing or infinite, text for a time (UTC) and for what JSON does not know."""
    if type(value) is float:
        return shortened(value)
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return shortened(float(value))
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)


def shortened(value: float) -> float | int | None:
    """A number in seven digits; a whole one without its point."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def plains(values: Iterable[Any]) -> list[Any]:
    """Many values."""
    # A list is walked through in a tenth of the time of a column of pandas.
    return [plain(value) for value in (values.tolist() if isinstance(values, pd.Series | pd.Index) else values)]


def encoded(column: pd.Series) -> dict[str, Any]:
    """A column: `{"values": [...]}`, or `{"set": [...], "at": [...]}` where few values repeat, -1 for a missing one."""
    codes, found = pd.factorize(column)
    if 3 * len(found) > len(column):
        return {"values": plains(column)}
    return {"set": plains(found), "at": codes.tolist()}
