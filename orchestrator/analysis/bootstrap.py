"""The bootstrap of a mean over few repeats: what other draws of the same seeds would have given.

Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.rows import Floats
from orchestrator.errors import TableError

Counts = npt.NDArray[np.int64]

EXACT_UP_TO = 6
_DRAWS = 10_000


def mean_interval(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    """The percentile interval of each cell's mean.

    Up to 6 seeds all draws with replacement are counted, each with its probability (n = 5: 126 of them), so that the
    ends are exact; beyond, 10,000 draws from a fixed stream stand for them. The low end is the smallest mean m with
    P(mean <= m) >= (1 - confidence) / 2, the high end its mirror image. The ends are within the range of the values,
    and with few seeds they lie too close together: what no seed showed is in no draw.

    Args:
        values: shape (cells, seeds).
        confidence: between 0 and 1.

    Returns:
        Low and high ends, shape (cells,); NaN for one seed and where a value is infinite.

    Raises:
        TableError: the confidence is not inside (0, 1).

    """
    if not 0 < confidence < 1:
        msg = f"confidence {confidence!r} must lie between 0 and 1, as 0.95 does"
        raise TableError(msg)
    seeds, usual = values.shape[1], np.isfinite(values).all(axis=1)
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if seeds < 2 or not usual.any():
        return low, high
    counts, probabilities = resamples(seeds)
    low[usual], high[usual] = _ends(values[usual], counts, probabilities, (1 - confidence) / 2)
    return low, high


def _ends(values: Floats, counts: Counts, probabilities: Floats, tail: float) -> tuple[Floats, Floats]:
    means = weighted_means(values[:, None, :, None], counts[None])[..., 0]
    order = np.argsort(means, axis=1, kind="stable")
    ordered = np.take_along_axis(means, order, axis=1)
    below = np.cumsum(probabilities[order], axis=1)
    above = np.cumsum(probabilities[order][:, ::-1], axis=1)
    # A sum of probabilities that is the tail but for rounding has reached it.
    first = (below >= tail - 1e-12).argmax(axis=1)
    last = means.shape[1] - 1 - (above >= tail - 1e-12).argmax(axis=1)
    rows = np.arange(len(values))
    return ordered[rows, first], ordered[rows, last]


def resamples(seeds: int) -> tuple[Counts, Floats]:
    """How often each seed is drawn, shape (draws, seeds), and the probability of each draw; see `mean_interval`."""
    if seeds > EXACT_UP_TO:
        drawn = np.random.default_rng([seeds]).multinomial(seeds, np.full(seeds, 1 / seeds), size=_DRAWS)
        return drawn, np.full(_DRAWS, 1 / _DRAWS)
    counts = np.array(list(_compositions(seeds, seeds)), dtype=np.int64)
    ways = [math.factorial(seeds) / math.prod(math.factorial(one) for one in row) for row in counts.tolist()]
    return counts, np.array(ways) / seeds**seeds


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as an ordered sum of so many numbers >= 0."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def weighted_means(values: Floats, counts: npt.NDArray[np.integer]) -> Floats:
    """Means of repeats that are drawn `counts` times each.

    The sum runs over the repeats in their order and is put back into the range of the values: equal values have
    exactly their own mean, and no mean leaves the range by rounding.

    Args:
        values: shape (..., repeats, objectives); NaN fills up cells with fewer repeats, and is never drawn.
        counts: shape (..., repeats); the leading axes go together with those of `values`.

    Returns:
        Shape (..., objectives). An infinite value that is drawn makes its mean infinite.

    """
    total, number = 0.0, counts.sum(axis=-1)[..., None]
    for i in range(values.shape[-2]):
        weight, value = counts[..., i, None], values[..., i, :]
        with np.errstate(invalid="ignore"):
            part = weight * value
        total = total + (part if np.isfinite(value).all() else np.where(weight > 0, part, 0.0))
    low, high = np.nanmin(values, axis=-2), np.nanmax(values, axis=-2)
    return np.clip(total / number, low, high)
