"""Margin: the images whose two most likely classes are nearly as likely."""

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.ranking import by_score, doubt, of_probabilities


def margin(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Lowest p(first|x) - p(second|x) first, p = softmax of the logits (C, classes). Nothing is drawn.

    Reference: Scheffer, Decomain & Wrobel, Active hidden Markov models for information extraction, IDA 2001; Settles,
    Active learning literature survey, 2009, section 3.1.
    """
    del source
    return by_score(pool, of_probabilities(closeness, pool.network.logits(pool.candidates)), count)


def closeness(probabilities: Tensor) -> Tensor:
    """1 - (p_first - p_second), (n, classes) -> (n,); 0 for a single class.

    As (1 - p_first) + p_second, which tells apart images of which the network is all but sure.
    """
    top = probabilities.argmax(1, keepdim=True)
    return doubt(probabilities) + probabilities.scatter(1, top, 0.0).amax(1)
