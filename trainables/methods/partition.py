"""Which activations stay full: a one-dimensional partition of their metric into clusters."""

from collections.abc import Sequence

import numpy as np


def clusters(values: Sequence[float], count: int) -> list[int]:
    """The cluster, from 0, of each value: those of the lowest values come first, and the sum of squares is least.

    What k-means seeks; in one dimension dynamic programming over the sorted values finds it: clusters are intervals.

    Raises:
        ValueError: there are fewer values than clusters.

    """
    if not 1 <= count <= len(values):
        msg = f"{len(values)} values make no {count} clusters"
        raise ValueError(msg)
    order = np.argsort(np.asarray(values), kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    n = len(ordered)
    spread = [[_spread(ordered[i:j]) for j in range(n + 1)] for i in range(n)]
    best = [[0.0 if n_taken == 0 else np.inf for n_taken in range(n + 1)]]
    cut: list[list[int]] = [[0] * (n + 1)]
    for _ in range(count):
        found = [(np.inf, 0), *(min((best[-1][i] + spread[i][j], i) for i in range(j)) for j in range(1, n + 1))]
        best.append([cost for cost, _ in found])
        cut.append([start for _, start in found])
    labels, end = [0] * n, n
    for cluster in range(count, 0, -1):
        start = cut[cluster][end]
        for place in range(start, end):
            labels[order[place]] = cluster - 1
        end = start
    return labels


def _spread(values: np.ndarray) -> float:
    return float(((values - values.mean()) ** 2).sum()) if len(values) else np.inf


def highest(values: Sequence[float], ratio: float) -> list[bool]:
    """The largest group of highest values that a partition into few clusters gives and that is at most `ratio` of all.

    For N = 1, 2, ... clusters the one of the highest values is taken, once it holds at most that share; none where not
    even a single value does.
    """
    for count in range(1, len(values) + 1):
        labels = clusters(values, count)
        chosen = [label == count - 1 for label in labels]
        if sum(chosen) <= ratio * len(values) + 1e-9:
            return chosen
    return [False] * len(values)
