"""Parts that the strategies share: class probabilities, and candidates by a score."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.active.pool import Pool

ROWS = 8192
"""Candidates that are scored at a time in fp64: memory for many classes stays bounded."""


def by_score(pool: Pool, scores: Tensor, count: int) -> Tensor:
    """The `count` candidates of the highest score, highest first; of equal ones the earlier first.

    Args:
        pool: the round.
        scores: of `pool.candidates`, (C,).
        count: how many, at most C.

    """
    return pool.candidates[scores.argsort(descending=True, stable=True)[:count]]


def of_probabilities(score: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """`score` of class probabilities, which are computed in fp64 and never all at once.

    Args:
        score: probabilities (n, classes) to scores (n,), row by row.
        logits: fp32 (C, classes), finite.

    Returns:
        fp64 (C,).

    """
    return torch.cat([score(part.double().softmax(1)) for part in logits.split(ROWS)])


def doubt(probabilities: Tensor) -> Tensor:
    """1 - max_c p_c, (n, classes) -> (n,).

    It is the sum over the other classes, so that images of which the network is all but sure keep their order: 1 - p
    would be 0 for them all.
    """
    top = probabilities.argmax(1, keepdim=True)
    return probabilities.scatter(1, top, 0.0).sum(1)
