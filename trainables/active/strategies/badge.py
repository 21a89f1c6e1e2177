"""BADGE: images whose loss gradients are large and differ from each other."""

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.geometry import OuterProducts, Vectors, scaled
from trainables.active.strategies.seeding import far_apart


def badge(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """k-means++ seeding on the gradients of the loss at the predicted class, in the last layer's weights.

        g(x) = (p(x) - onehot(argmax_c p_c(x))) outer h(x),    p (C, classes), h = features (C, D)

    The first is the longest gradient, as in the authors' code; each further one is drawn with probability in proportion
    to its squared distance to the nearest that was chosen. g is never formed:

        |g_i - g_j|^2 = |a_i|^2 |h_i|^2 + |a_j|^2 |h_j|^2 - 2 (a_i . a_j)(h_i . h_j),    a = p - onehot

    Where the gradients that differ run out, the others are drawn evenly. Draws: `count - 1` numbers, then these.

    Reference: Ash et al., Deep batch active learning by diverse, uncertain gradient lower bounds, ICLR 2020, alg. 1.

    Raises:
        InfeasibleError: the network has no features.

    """
    points = gradients(pool.network.logits(pool.candidates), pool.network.features(pool.candidates))
    draws: list[float] = torch.rand(count - 1, dtype=torch.float64, generator=source).tolist()
    width = len(points.left.columns) + len(points.right.columns)
    picks = far_apart(points, int(points.norms().argmax()), draws, width)
    return pool.candidates[_filled(picks, len(pool.candidates), count, source)]


def gradients(logits: Tensor, features: Tensor) -> OuterProducts:
    """The factors of the gradient embeddings, from logits (C, classes) and features (C, D); the unit of h is free."""
    towards = logits.softmax(1)
    top = towards.argmax(1, keepdim=True)
    towards = towards.scatter_add(1, top, torch.full(top.shape, -1.0))
    return OuterProducts(Vectors(towards.t().contiguous()), Vectors(scaled(features).t().contiguous()))


def _filled(picks: list[int], size: int, count: int, source: torch.Generator) -> Tensor:
    """`picks` and, up to `count`, others below `size` in random order."""
    chosen = torch.tensor(picks)
    if len(picks) == count:
        return chosen
    free = torch.ones(size, dtype=torch.bool)
    free[chosen] = False
    others = torch.nonzero(free).flatten()
    return torch.cat([chosen, others[torch.randperm(len(others), generator=source)[: count - len(picks)]]])
