"""Steps and zeros of grids: those under which rounded values are nearest to the values in the sum of squares."""

import torch
from torch import Tensor

from trainables.models.grids import INT8_ZERO

SHARES = tuple(0.1 + 0.9 * number / 59 for number in range(60))
"""Of the whole range, that a grid may cover: what lies beyond is rounded to its end."""
MOST_VALUES = 1 << 22
"""Weights of a layer, evenly chosen, on which grids are tried; the range is that of all."""
FINER = 8
"""Steps between two of these that are tried about the best one."""
REFINEMENTS = 20


def weight_grids(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(steps, zeros), fp32 (G,) each, of the grids for `rows` (G, n): code = clamp(round(w / step) + zero, 0, 2^b - 1).

    Of each row the whole range, 0 included, and 59 smaller ones are tried, with the zero that it asks for and those
    beside it, and finer ones about the best; then step and codes are chosen in turn, the step by least squares, w . c /
    c . c with c = code - zero, until nothing changes. At 8 bits the zero is 128 (`trainables.models.grids.INT8_ZERO`).
    """
    low, high, top = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0), 2**bits - 1
    if bits == 8:
        widest = torch.maximum(high / (top - INT8_ZERO), -low / INT8_ZERO)
        zeros = [torch.full_like(low, INT8_ZERO)]
    else:
        widest = (high - low) / top
        nearest = (-low / widest).nan_to_num().round()
        zeros = [(nearest + shift).clamp(0, top) for shift in (0, -1, 1)]
    return _nearest(rows, widest, zeros, top)


def activation_step(values: Tensor, bits: int) -> float:
    """The step of the grid 0, s, ..., (2^b - 1) s for values (n,) of at least 0; 1 / (2^b - 1) where all are 0."""
    top = 2**bits - 1
    rows = values.view(1, -1)
    steps, _ = _nearest(rows, rows.amax(1) / top, [torch.zeros(1)], top)
    return float(steps) if float(rows.max()) > 0 else 1 / top


def _nearest(rows: Tensor, widest: Tensor, zeros: list[Tensor], top: int) -> tuple[Tensor, Tensor]:
    """The best (steps, zeros) for `rows` among shares of the `widest` step and `zeros`, refined."""
    widest = torch.where(widest > 0, widest, 1.0)
    rows = rows[:, :: max(1, rows.numel() // MOST_VALUES)]
    best = _Best(rows, widest, zeros[0], top)
    for zero in zeros:
        for share in SHARES:
            best.try_(share * widest, zero)
    middle, zero = best.step, best.zero
    for part in range(1, 2 * FINER):
        best.try_(middle + (part / FINER - 1) * (SHARES[1] - SHARES[0]) * widest, zero)
    return _refined(rows, best.step, best.zero, top), best.zero


class _Best:
    """Of each row the step and the zero of least error among those that were tried."""

    def __init__(self, rows: Tensor, step: Tensor, zero: Tensor, top: int) -> None:
        self.rows, self.step, self.zero, self.top = rows, step, zero, top
        self._least = _error(rows, step, zero, top)

    def try_(self, step: Tensor, zero: Tensor) -> None:
        error = _error(self.rows, step, zero, self.top)
        better = error < self._least
        self.step, self.zero = torch.where(better, step, self.step), torch.where(better, zero, self.zero)
        self._least = torch.where(better, error, self._least)


def _refined(rows: Tensor, step: Tensor, zero: Tensor, top: int) -> Tensor:
    """The step after rounding and least squares in turn, as long as it comes nearer."""
    least = _error(rows, step, zero, top)
    for _ in range(REFINEMENTS):
        codes = _codes(rows, step, zero, top) - zero[:, None]
        squares = codes.square().sum(1)
        fitted = torch.where(squares > 0, (rows * codes).sum(1) / squares.clamp(min=1), step)
        error = _error(rows, fitted, zero, top)
        better = (error < least) & (fitted > 0)
        if not bool(better.any()):
            break
        step, least = torch.where(better, fitted, step), torch.where(better, error, least)
    return step


def _codes(rows: Tensor, step: Tensor, zero: Tensor, top: int) -> Tensor:
    return ((rows / step[:, None]).round() + zero[:, None]).clamp(0, top)


def _error(rows: Tensor, step: Tensor, zero: Tensor, top: int) -> Tensor:
    """Sum of squares of what rounding changes in each row, fp64 (G,)."""
    rounded = step[:, None] * (_codes(rows, step, zero, top) - zero[:, None])
    return (rounded - rows).square().sum(1, dtype=torch.float64)
