"""Strategies around strategies: fewer candidates, and chance among the best."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.active.pool import Pool, Strategy


@dataclass(frozen=True, slots=True)
class PoolCap:
    """Only a random part of the candidates is looked at, drawn anew each round.

    Args:
        inner: chooses within the part.
        cap: candidates in the part; where more are asked for, as many as those.

    """

    inner: Strategy
    cap: int

    def __call__(self, pool: Pool, count: int, source: torch.Generator) -> Tensor:
        """The strategy; a pool within the cap is handed on as it is, and nothing is drawn."""
        size = max(self.cap, count)
        if size >= len(pool.candidates):
            return self.inner(pool, count, source)
        part = torch.randperm(len(pool.candidates), generator=source)[:size].sort().values
        return self.inner(replace(pool, candidates=pool.candidates[part]), count, source)


@dataclass(frozen=True, slots=True)
class Oversample:
    """The queries are drawn at random from the best `ceil(times * count)`; the drawn ones keep their order.

    Args:
        inner: says which are the best.
        times: at least 1; 1 leaves nothing to chance.

    """

    inner: Strategy
    times: float

    def __call__(self, pool: Pool, count: int, source: torch.Generator) -> Tensor:
        """The strategy; the draw follows what `inner` draws."""
        wide = math.ceil(min(self.times * count, len(pool.candidates)))
        best = self.inner(pool, wide, source)
        if wide == count:
            return best
        return best[torch.randperm(wide, generator=source)[:count].sort().values]
