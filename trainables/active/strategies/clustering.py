"""k-means in blocks of rows, seeded by a generator."""

import torch
from torch import Tensor

from trainables.active.strategies.geometry import ROWS, Vectors
from trainables.active.strategies.seeding import far_apart

ITERATIONS = 20


def k_means(rows: Tensor, clusters: int, source: torch.Generator) -> Tensor:
    """The cluster of each row, int64 (n,), from k-means++ seeds and at most `ITERATIONS` steps of Lloyd.

    A cluster that loses its last row keeps its centre. Fewer clusters come out where fewer rows differ. Memory is
    O(n + ROWS * clusters).

    Args:
        rows: fp32 (n, D), n >= 1.
        clusters: at least 1.
        source: draws `clusters` uniform numbers.

    """
    first, *draws = torch.rand(min(clusters, len(rows)), dtype=torch.float64, generator=source).tolist()
    centres = rows[far_apart(Vectors(rows.t().contiguous()), int(first * len(rows)), draws, rows.shape[1])]
    home = nearest_centre(rows, centres)
    for _ in range(ITERATIONS):
        before, centres = home, _means(rows, home, centres)
        home = nearest_centre(rows, centres)
        if torch.equal(before, home):
            break
    return home


def nearest_centre(rows: Tensor, centres: Tensor) -> Tensor:
    """The first of the nearest centres (k, D) of each row (n, D), int64 (n,)."""
    lengths = centres.square().sum(1)
    return torch.cat([torch.addmm(lengths, part, centres.t(), alpha=-2).argmin(1) for part in rows.split(ROWS)])


def _means(rows: Tensor, home: Tensor, centres: Tensor) -> Tensor:
    sums = torch.zeros_like(centres).index_add_(0, home, rows)
    sizes = home.bincount(minlength=len(centres)).unsqueeze(1)
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
