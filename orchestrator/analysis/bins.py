"""The values of a leaf along an axis: one place for each, or a bin for several where they are too many numbers."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.picture_style import value_text
from orchestrator.analysis.rows import Floats, hashable

MOST_BINS = 8
LOGARITHMIC_SPAN = 20.0
"""From which ratio of the largest to the smallest value on bins are equal in log."""

SMALLEST = 1e-100
"""What is smaller is no number of a study, and has no digits left to be rounded."""

_STEPS = (1, 2, 5, 10, 20)


@dataclass(frozen=True, slots=True)
class Places:
    """Where each row stands on an axis, shape (rows,), -1 for null; and what is written at each place.

    `edges` are those of the bins, rising, one more than labels; none where each value has a place of its own.
    """

    codes: npt.NDArray[np.int64]
    labels: list[str]
    edges: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def binned(self) -> bool:
        """Whether a place stands for a range of numbers."""
        return len(self.edges) > 0


def places(column: pd.Series, most: int) -> Places:
    """A place for each value in its order; bins where more than `most` values are all numbers."""
    values = hashable(column)
    different = sorted(values.dropna().unique().tolist(), key=_order)
    if len(different) > most and all(_is_number(one) for one in different):
        return binned_places(values.to_numpy(dtype=np.float64, na_value=np.nan))
    place_of = {value: place for place, value in enumerate(different)}
    codes = np.array([place_of.get(value, -1) for value in values], dtype=np.int64)
    return Places(codes, _apart(different))


def binned_places(values: Floats, *, low: float = math.inf, high: float = -math.inf, log: bool | None = None) -> Places:
    """Bins for numbers, and for all between `low` and `high` where these are known; see `bin_edges`."""
    ends = min(low, float(np.nanmin(values))), max(high, float(np.nanmax(values)))
    edges = bin_edges(*ends, log=log)
    return Places(_codes(values, edges), _ranges(edges), edges)


def bin_edges(low: float, high: float, *, log: bool | None = None) -> Floats:
    """At most nine round numbers, rising, the first at or under `low` and the last at or over `high`, `low` < `high`.

    Equal in log, but for the rounding to two digits, where both are positive and `log` says so, or, if it says nothing,
    more than a factor of 20 apart; else equal. So close together that rounded edges would not rise they are equal too.
    """
    far = high > LOGARITHMIC_SPAN * low if log is None else log and high > 2 * low
    if low > SMALLEST and far:
        inner = [float(f"{edge:.1e}") for edge in np.geomspace(low, high, MOST_BINS + 1)[1:-1]]
        edges = np.array([_outwards(low, math.floor), *inner, _outwards(high, math.ceil)])
    elif high - low > SMALLEST:
        edges = _equal(low, high)
    else:
        return np.array([low, high])
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def _equal(low: float, high: float) -> Floats:
    """Multiples of a round step."""
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_BINS))
    steps = (power * step for step in _STEPS)
    step = next(step for step in steps if math.ceil(high / step) - math.floor(low / step) <= MOST_BINS)
    multiples = range(math.floor(low / step), math.ceil(high / step) + 1)
    # Twelve digits: 3 * 0.1 is 0.3, so that a value on an edge stands where its label says.
    return np.array([float(f"{step * multiple:.12g}") for multiple in multiples])


def _outwards(value: float, rounding: Callable[[float], int]) -> float:
    """Two digits of a positive number, rounded down or up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{rounding(round(value / unit, 9)) * unit:.12g}")


def _codes(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """A value on an edge is in the bin above it, the largest in the last."""
    found = np.searchsorted(edges, values, side="right") - 1
    return np.where(np.isnan(values), -1, np.clip(found, 0, len(edges) - 2)).astype(np.int64)


def _ranges(edges: Floats) -> list[str]:
    dash = " to " if edges[0] < 0 else "\N{EN DASH}"
    return [f"{low:.12g}{dash}{high:.12g}" for low, high in itertools.pairwise(edges)]


def _apart(values: Sequence[object]) -> list[str]:
    """The values in three digits, or in as many as tell them apart."""
    short = [value_text(value) for value in values]
    if len(set(short)) == len(short):
        return short
    return [f"{value:.12g}" if _is_number(value) else value_text(value) for value in values]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
