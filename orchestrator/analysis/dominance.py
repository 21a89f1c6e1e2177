"""Dominance among points, as arrays: directions, tolerances and infinities are gone from the numbers given to moocore.

A point dominates another if it is at least as good in every objective and better in one. The sorting is moocore's,
O(n log n) up to three objectives.
"""

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt

from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.rows import Floats, Mask

_WORTH_THINNING = 5_000


def nondominated(losses: Floats) -> Mask:
    """Which points no other point dominates; equal points all stay.

    Before moocore sorts, points dominated by a central one are dropped, as long as that drops many: one pass over the
    columns costs a tenth of a sort. What is dropped is dominated, and what it dominates is too, so nothing changes.

    Args:
        losses: finite, to be made small, shape (points, objectives).

    """
    left = _thinned(losses) if len(losses) > _WORTH_THINNING else np.arange(len(losses))
    mask = np.zeros(len(losses), dtype=np.bool_)
    if len(left):
        mask[left] = moocore.is_nondominated(losses if len(left) == len(losses) else losses[left], keep_weakly=True)
    return mask


def _thinned(losses: Floats) -> npt.NDArray[np.intp]:
    """Positions of points among which are all that are not dominated."""
    left, columns = np.arange(len(losses)), [np.ascontiguousarray(column) for column in losses.T]
    while len(left) > _WORTH_THINNING:
        pivot = _central(columns)
        better, equal = np.zeros(len(left), dtype=np.bool_), np.ones(len(left), dtype=np.bool_)
        for column in columns:
            better |= column < column[pivot]
            equal &= column == column[pivot]
        kept = np.flatnonzero(better | equal)
        if len(kept) == len(left):
            break
        few = len(kept) > 0.7 * len(left)
        left, columns = left[kept], [column[kept] for column in columns]
        if few:
            break
    return left


def _central(columns: Sequence[Floats]) -> int:
    """The point whose losses, each on a scale from 0 to 1, have the smallest sum; no other point dominates it."""
    total = np.zeros_like(columns[0])
    for column in columns:
        with np.errstate(over="ignore", invalid="ignore"):  # a range beyond floats scales to nothing
            scale = 1 / (column.max() - column.min() or 1.0)
            total += (column - column.min()) * scale
    return int(total.argmin())


def losses_of(values: Floats, wanted: Sequence[Objective]) -> Floats:
    """Values on the grids of their tolerances, all to be made small and finite, shape (rows, objectives)."""
    columns = [on_grid(values[:, i], one.tolerance, relative=one.relative) * one.sign for i, one in enumerate(wanted)]
    return finite(np.stack(columns, axis=1))


def finite(losses: Floats) -> Floats:
    """The same order in every column, without infinities, which moocore uses as sentinels from three objectives on."""
    for i in np.flatnonzero(~np.isfinite(losses).all(axis=0)):
        losses[:, i] = np.unique(losses[:, i], return_inverse=True)[1]
    return losses


def signs(wanted: Sequence[Objective]) -> Floats:
    """-1 for what is to be made large, 1 for what is to be made small; shape (objectives,)."""
    return np.array([one.sign for one in wanted])


def on_grid(values: Floats, tolerance: float, *, relative: bool) -> Floats:
    """The number of the grid cell of each value: monotone in the value, -+inf as they are.

    Linear: round(v / tolerance). Logarithmic: round(ln|v| / ln(1 + tolerance)), counted away from zero with the sign
    of v; zero has a cell of its own. Two values of one cell differ by at most the tolerance.
    """
    if tolerance == 0:
        return values
    if not relative:
        with np.errstate(over="ignore"):  # a quotient beyond the range of floats is its own last cell
            return np.rint(values / tolerance)
    step = np.log1p(tolerance)
    smallest = np.rint(np.log(np.nextafter(0.0, 1.0)) / step)
    sizes = np.where(values == 0, 1.0, np.abs(values))
    return np.sign(values) * (np.rint(np.log(sizes) / step) - smallest + 1)
