"""BALD: the images on which draws of the network are each sure and do not agree."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.entropy import nats
from trainables.active.strategies.ranking import by_score

NUMBERS = 2**21
"""Logits that are held at a time, over passes, images and classes: 16 MiB in fp64."""

NOISE = 1e-12
"""Mutual information below it, in nats, is rounding: such images tie."""


@dataclass(frozen=True, slots=True)
class Bald:
    """Highest mutual information of prediction and weights first, the weights drawn by dropout.

        I(x) = H(mean_t p_t(x)) - mean_t H(p_t(x)),    p_t = softmax of pass t's logits (passes, C, classes)

    Reference: Houlsby et al., Bayesian active learning for classification and preference learning, 2011, with the
    dropout draws of Gal, Islam & Ghahramani, Deep Bayesian active learning with image data, ICML 2017. Here dropout
    acts before the last layer only. Images are taken one by one, without regard to how alike they are.

    Args:
        passes: draws of dropout.

    """

    passes: int

    def __call__(self, pool: Pool, count: int, source: torch.Generator) -> Tensor:
        """The strategy; dropout is drawn from `source`."""
        rows = max(1, NUMBERS // (self.passes * pool.classes))
        parts = pool.candidates.split(rows)
        drawn = (pool.network.dropout_logits(part, self.passes, source) for part in parts)
        return by_score(pool, torch.cat([information(logits) for logits in drawn]), count)


def information(logits: Tensor) -> Tensor:
    """Mutual information in nats of logits (passes, n, classes), fp64 (n,), at least 0."""
    probabilities = logits.double().softmax(-1)
    gain = nats(probabilities.mean(0)) - nats(probabilities).mean(0)
    return gain.where(gain > NOISE, 0.0)
