"""Forgetting: the images that the network keeps changing its mind about."""

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.ranking import by_score, doubt, of_probabilities


def forgetting(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Most changes of the predicted class over the round's epochs first, ties by least confidence. Nothing is drawn.

    Toneva et al., An empirical study of example forgetting during deep neural network learning, ICLR 2019, count how
    often a right prediction turns wrong. That takes the label, which a candidate does not have; changes of the
    predicted class stand in for it, as our reading and not as the paper's figure. With one epoch there are none, and
    the order is that of least confidence.
    """
    del source
    doubts = of_probabilities(doubt, pool.network.logits(pool.candidates))
    order = doubts.argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    changes = pool.network.flips(pool.candidates)
    return by_score(pool, changes * len(order) - places, count)
