"""Entropy: the images whose class probabilities are the most even."""

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.ranking import by_score, of_probabilities


def entropy(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Highest H(p) = -sum_c p(c|x) log p(c|x) first, p = softmax of the logits (C, classes). Nothing is drawn.

    Reference: Shannon, A mathematical theory of communication, 1948; Settles, Active learning literature survey, 2009,
    section 3.1.
    """
    del source
    return by_score(pool, of_probabilities(nats, pool.network.logits(pool.candidates)), count)


def nats(probabilities: Tensor) -> Tensor:
    """H(p) in nats, with 0 log 0 = 0; (..., classes) -> (...)."""
    return torch.special.entr(probabilities).sum(-1)
