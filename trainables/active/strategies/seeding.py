"""k-means++ seeding: points that are far from each other, by chance in proportion to how far."""

import math

import torch
from torch import Tensor

from trainables.active.strategies.geometry import Points, slack, squared


def far_apart(points: Points, first: int, draws: list[float], width: int) -> list[int]:
    """Indices of different points: `first`, then one for each draw.

    A point is drawn with probability in proportion to its squared distance to the nearest that was drawn before. Fewer
    come back where the points that differ run out.

    Reference: Arthur & Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.

    Args:
        points: n of them.
        first: where it begins.
        draws: uniform numbers in [0, 1), one per further point.
        width: terms in an inner product, which say how far it is rounded.

    """
    norms = points.norms()
    noise = slack(norms, width)
    picks = [first]
    nearest = torch.full_like(norms, math.inf)
    for draw in draws:
        torch.minimum(nearest, squared(norms, points.products(picks[-1]), picks[-1], noise), out=nearest)
        nearest[picks[-1]] = 0.0
        place = drawn(nearest, draw)
        if place is None:
            break
        picks.append(place)
    return picks


def drawn(weights: Tensor, draw: float) -> int | None:
    """The place at which the cumulative weight first exceeds `draw` times the total; None where all weights are 0.

    `draw` is at most 1 - 2^-53, so that its product with the total rounds to less than the total.
    """
    cumulative = weights.cumsum(0, dtype=torch.float64)
    total = float(cumulative[-1])
    if total == 0.0:
        return None
    return int(torch.searchsorted(cumulative, draw * total, right=True))
