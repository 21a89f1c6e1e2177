"""Weights on grids: whole numbers of b bits, and for each group of filters the step between them and the zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

FEWEST_BITS, MOST_BITS = 2, 8
INT8_ZERO = 128
"""The zero of 8-bit grids: with any other one, codes minus zero would not all be an int8."""


@dataclass(frozen=True, slots=True)
class Grid:
    """w = step_g (code - zero_g), code = 0 ... 2^bits - 1, g the group of the filter that the weight belongs to.

    Attributes:
        bits: of a code.
        steps: one a group, each a number of fp32.
        zeros: one a group, each a code.
        groups: the group of each filter; empty where filters next to one another are grouped, equally many each.

    """

    bits: int
    steps: tuple[float, ...]
    zeros: tuple[int, ...]
    groups: tuple[int, ...] = ()

    @classmethod
    def read(cls, bits: int, steps: Sequence[float], zeros: Sequence[int], groups: Sequence[int]) -> Self:
        """The grid of plain data.

        Raises:
            ValueError: it is none.

        """
        grid = cls(int(bits), tuple(map(float, steps)), tuple(map(int, zeros)), tuple(map(int, groups)))
        if fault := grid.fault():
            raise ValueError(fault)
        return grid

    def fault(self) -> str:
        """What is wrong with it; empty if nothing."""
        if not FEWEST_BITS <= self.bits <= MOST_BITS:
            return f"a grid of {self.bits} bits; {FEWEST_BITS} to {MOST_BITS} are possible"
        if not self.steps or len(self.steps) != len(self.zeros):
            return f"a grid of {len(self.steps)} steps and {len(self.zeros)} zeros"
        if not all(0 < step < float("inf") for step in self.steps):
            return "a grid whose step is not above 0 or not finite"
        if not all(0 <= zero < 2**self.bits for zero in self.zeros):
            return f"a grid of {self.bits} bits whose zero is none of its codes"
        if not all(0 <= group < len(self.steps) for group in self.groups):
            return f"a grid of {len(self.steps)} groups with a filter in none of them"
        return ""

    def per_filter(self, filters: int) -> tuple[Tensor, Tensor]:
        """(steps, zeros) of each filter, fp32 (filters, 1) each."""
        group = torch.tensor(self.groups) if self.groups else next_to_one_another(filters, len(self.steps))
        steps, zeros = torch.tensor(self.steps), torch.tensor(self.zeros, dtype=torch.float32)
        return steps[group].unsqueeze(1), zeros[group].unsqueeze(1)

    def codes(self, weight: Tensor) -> Tensor:
        """The codes of weights (O, ...) on the grid, int64 (O, n).

        Raises:
            ValueError: a weight lies beside the grid.

        """
        steps, zeros = self.per_filter(len(weight))
        flat = weight.detach().cpu().flatten(1)
        codes = (flat / steps).round() + zeros
        inside = bool(((codes >= 0) & (codes < 2**self.bits)).all())
        if not inside or not torch.equal(self.values(codes), flat):
            msg = f"weights lie beside their grid of {self.bits} bits"
            raise ValueError(msg)
        return codes.long()

    def values(self, codes: Tensor) -> Tensor:
        """The weights of codes (O, n), fp32 (O, n)."""
        steps, zeros = self.per_filter(len(codes))
        return steps * (codes - zeros)


def next_to_one_another(filters: int, groups: int) -> Tensor:
    """The group of each filter where filters next to one another are grouped, int64 (filters,).

    Raises:
        ValueError: the groups do not divide the filters.

    """
    if filters % groups:
        msg = f"{groups} groups do not divide {filters} filters"
        raise ValueError(msg)
    return torch.arange(filters) // (filters // groups)
