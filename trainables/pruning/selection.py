"""Which channels stay: from a rank of each channel of each group to masks.

A rule takes ranks, one tensor of shape (channels,) a group, the largest to go first, and how far the ramp has risen (0
to 1); it gives a boolean tensor a group, True where the channel stays. Ties go by place: the earlier stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainables.pruning.ramp import ANY_COUNT, Rounding, kept_channels


class Selection(Protocol):
    """A rule as above."""

    def __call__(self, ranks: Sequence[Tensor], progress: float) -> list[Tensor]:
        """Which channels stay in each group."""
        ...


@dataclass(frozen=True, slots=True)
class LayerBudget:
    """Every group loses the share `pfr` of its channels."""

    pfr: float
    rounding: Rounding = ANY_COUNT
    min_filters: int = 0

    def __call__(self, ranks: Sequence[Tensor], progress: float) -> list[Tensor]:
        """Which channels stay in each group; at least one does."""
        pfr = self.pfr * progress
        return [_lowest(rank, kept_channels(len(rank), pfr, self.rounding, self.min_filters)) for rank in ranks]


@dataclass(frozen=True, slots=True)
class GlobalBudget:
    """The share `pfr` of all channels goes, wherever their ranks are largest; a group may lose all."""

    pfr: float
    rounding: Rounding = ANY_COUNT
    min_filters: int = 0

    def __call__(self, ranks: Sequence[Tensor], progress: float) -> list[Tensor]:
        """Which channels stay in each group."""
        every = torch.cat(list(ranks))
        stays = _lowest(every, math.ceil((1 - self.pfr * progress) * len(every) - 1e-9))
        kept = [int(part.sum()) for part in stays.split([len(rank) for rank in ranks])]
        return _lowest_of_each(ranks, kept, self.rounding, self.min_filters)


@dataclass(frozen=True, slots=True)
class RankLimit:
    """Every channel whose rank lies above `limit` goes; how many that are is an outcome. A group may lose all.

    While the ramp rises, at most the share `progress` of those goes that lie above.
    """

    limit: float
    rounding: Rounding = ANY_COUNT
    min_filters: int = 0

    def __call__(self, ranks: Sequence[Tensor], progress: float) -> list[Tensor]:
        """Which channels stay in each group."""
        kept = [len(rank) - math.floor(progress * int((rank > self.limit).sum()) + 1e-9) for rank in ranks]
        return _lowest_of_each(ranks, kept, self.rounding, self.min_filters)


def _lowest_of_each(ranks: Sequence[Tensor], kept: Sequence[int], rounding: Rounding, least: int) -> list[Tensor]:
    return [_lowest(rank, rounding(count, len(rank), least)) for rank, count in zip(ranks, kept, strict=True)]


def _lowest(rank: Tensor, count: int) -> Tensor:
    """True at the `count` smallest ranks."""
    stays = torch.zeros(len(rank), dtype=torch.bool)
    stays[rank.argsort(stable=True)[:count]] = True
    return stays
