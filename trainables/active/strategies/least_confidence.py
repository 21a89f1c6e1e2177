"""Least confidence: the images whose most likely class is the least likely."""

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.ranking import by_score, doubt, of_probabilities


def least_confidence(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Highest 1 - max_c p(c|x) first, p = softmax of the logits (C, classes). Nothing is drawn.

    Reference: Lewis & Gale, A sequential algorithm for training text classifiers, SIGIR 1994; Settles, Active learning
    literature survey, 2009, section 3.1.
    """
    del source
    return by_score(pool, of_probabilities(doubt, pool.network.logits(pool.candidates)), count)
