"""TypiClust-like: the most typical image of each cluster that has no label yet."""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.active.pool import Pool
from trainables.active.strategies.clustering import k_means
from trainables.active.strategies.geometry import ROWS, scaled

CLUSTERS = 500
NEIGHBOURS = 20
"""Both as in the authors' code."""

WITNESSES = 2048
"""Rows of a cluster among which neighbours are looked for; in a larger one they are drawn."""


def typiclust(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """Clusters with the fewest labelled images first, of these the largest; of each the most typical candidate.

        typicality(x) = 1 / mean distance of x to its 20 nearest neighbours in the cluster

    The features (C + L, D) of candidates and labelled images, of length 1 each, are cut into `L + count` clusters by
    k-means, at most 500. A chosen image counts as labelled, so that clusters take turns once there are more queries
    than clusters. Draws: the seeds of k-means, and neighbours in clusters above 2,048 images.

    Reference: Hacohen, Dekel & Weinshall, Active learning on a budget: opposite strategies suit high and low budgets,
    ICML 2022. Like it, not the same: the paper's features are self-supervised, these are the selection network's; the
    authors' code leaves small clusters out, here they only come late.

    Raises:
        InfeasibleError: the network has no features.

    """
    rows = F.normalize(scaled(pool.network.features(torch.cat([pool.candidates, pool.labelled]))))
    home = k_means(rows, min(len(pool.labelled) + count, CLUSTERS), source)
    return pool.candidates[in_turns(home, typicality(rows, home, source), len(pool.candidates))[:count]]


def in_turns(home: Tensor, typical: Tensor, candidates: int) -> Tensor:
    """Places of the candidates, which come before the labelled: by turn, then by size of the cluster."""
    sizes = home.bincount()
    covered = home[candidates:].bincount(minlength=len(sizes))
    own = home[:candidates]
    order = typical[:candidates].argsort(descending=True, stable=True)
    order = order[own[order].argsort(stable=True)]
    held = own.bincount(minlength=len(sizes))
    rank = torch.arange(candidates) - (held.cumsum(0) - held)[own[order]]
    turn = covered[own[order]] + rank
    by_size = torch.argsort(sizes[own[order]], descending=True, stable=True)
    return order[by_size[turn[by_size].argsort(stable=True)]]


def typicality(rows: Tensor, home: Tensor, source: torch.Generator) -> Tensor:
    """1 / mean distance to the nearest neighbours in the same cluster, fp32 (n,); of an image on its own 0.

    Args:
        rows: fp32 (n, D).
        home: the cluster of each row, (n,).
        source: draws the witnesses of large clusters.

    """
    typical = torch.zeros(len(rows))
    by_cluster = home.argsort(stable=True).split(home.bincount().tolist())
    for members in by_cluster:
        if len(members) > 1:
            witnesses = members
            if len(members) > WITNESSES:
                witnesses = members[torch.randperm(len(members), generator=source)[:WITNESSES].sort().values]
            typical[members] = 1 / _spacing(rows, members, witnesses).clamp(min=torch.finfo(rows.dtype).eps)
    return typical


def _spacing(rows: Tensor, members: Tensor, witnesses: Tensor) -> Tensor:
    """Mean distance of each member to its nearest witnesses, without itself, (m,)."""
    others = min(NEIGHBOURS, len(witnesses) - 1)
    found: list[Tensor] = []
    for part in members.split(ROWS):
        distances = torch.cdist(rows[part], rows[witnesses])
        distances[part.unsqueeze(1) == witnesses] = torch.inf
        found.append(distances.topk(others, largest=False).values.mean(1))
    return torch.cat(found)
