"""K-center greedy (core-set): the images farthest from all that are labelled or chosen."""

import math

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.geometry import CENTRES, ROWS, beyond, scaled, slack

ACTIVE = 1024
"""Candidates among which picks are made before the whole pool is brought up to date."""

CHOSEN = -1.0
"""In the place of a squared distance: below all of them."""


def k_center(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Next the candidate with the largest distance to its nearest labelled or chosen image; nothing is drawn.

        argmax_i min_j |h_i - h_j|,    h = features (C, D), j over labelled and chosen

    This greedy order is at most a factor of two from the smallest possible covering radius. Where nothing is labelled,
    the first candidate is as far as any.

    Reference: Sener & Savarese, Active learning for convolutional neural networks: a core-set approach, ICLR 2018,
    algorithm 1. Distances are exact up to rounding in fp32, with O(C * D) memory.

    Raises:
        InfeasibleError: the network has no features.

    """
    del source
    features = pool.network.features(torch.cat([pool.candidates, pool.labelled]))
    rows, labelled = scaled(features).split([len(pool.candidates), len(pool.labelled)])
    return pool.candidates[torch.tensor(farthest_first(rows, labelled, count))]


def farthest_first(rows: Tensor, centres: Tensor, count: int, active: int = ACTIVE) -> list[int]:
    """Places of `count` rows in greedy order, fp32 (n, D), from the centres (L, D).

    A distance to the nearest centre only falls as centres are added, so one that is out of date is an upper bound.
    Picks are made among the `active` rows with the largest bounds, as long as the best of them is above the bound of
    every other row; then all rows take up the new centres in one matrix product. The picks are those of the plain loop.
    """
    norms = rows.square().sum(1)
    nearest = torch.full((len(rows),), math.inf)
    _approach(nearest, rows, norms, centres)
    picks: list[int] = []
    while len(picks) < count:
        new = _certain(nearest, rows, norms, count - len(picks), active)
        picks += new
        nearest[new] = CHOSEN
        if len(picks) < count:
            _approach(nearest, rows, norms, rows[new])
    return picks


def _approach(nearest: Tensor, rows: Tensor, norms: Tensor, centres: Tensor) -> None:
    """Lower `nearest`, squared distances (n,), to those to the centres where they are nearer."""
    noise = slack(norms, rows.shape[1])
    for first in range(0, len(centres), CENTRES):
        centre = centres[first : first + CENTRES]
        lengths = centre.square().sum(1)
        for begin in range(0, len(rows), ROWS):
            part = slice(begin, begin + ROWS)
            distances = torch.addmm(lengths, rows[part], centre.t(), alpha=-2).amin(1).add_(norms[part])
            torch.minimum(nearest[part], beyond(distances, noise[part]), out=nearest[part])


def _certain(nearest: Tensor, rows: Tensor, norms: Tensor, count: int, active: int) -> list[int]:
    """At least one and at most `count` next picks: as far as the active rows alone can tell."""
    first = int(nearest.argmax())
    top = nearest.topk(min(active, len(nearest)))
    outside = float(top.values[-1]) if len(nearest) > active else CHOSEN
    if float(nearest[first]) == 0.0:
        return torch.nonzero(nearest == 0.0).flatten()[:count].tolist()
    if float(nearest[first]) <= outside:
        return [first]
    return _among(top.indices.sort().values, nearest, rows, norms, count, outside)


def _among(active: Tensor, nearest: Tensor, rows: Tensor, norms: Tensor, count: int, outside: float) -> list[int]:
    """The plain greedy loop over the active rows, ascending (m,), until the farthest is not beyond `outside`."""
    near, points, lengths = nearest[active], rows[active], norms[active]
    noise = slack(lengths, rows.shape[1])
    picks: list[int] = []
    while len(picks) < count:
        place = int(near.argmax())
        if float(near[place]) <= outside:
            break
        picks.append(place)
        distances = torch.addmv(lengths, points, points[place], alpha=-2).add_(lengths[place])
        torch.minimum(near, beyond(distances, noise), out=near)
        near[place] = CHOSEN
    return active[picks].tolist()
