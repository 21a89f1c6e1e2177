"""Chance: the baseline of every other strategy."""

import torch
from torch import Tensor

from trainables.active.pool import Pool


def uniform(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Candidates drawn without replacement, each order as likely as any other. The network is not asked.

    Its prefixes are random draws too.
    """
    return pool.candidates[torch.randperm(len(pool.candidates), generator=source)[:count]]
