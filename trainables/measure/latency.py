"""How long a call of a loaded network takes, measured beside the networks that it is compared with."""

import gc
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from trainables.runtimes.base import Images, Predictor

Clock = Callable[[], int]

TURN_NS = 5_000_000
"""A turn counts calls for at least this long, so that a fast network has many in each.

Before them comes a call that does not count: it finds the caches as another network left them.
"""

WARM_CALLS = 3
WARM_LIMIT_NS = 2_000_000_000
SETTLED = 0.95
"""A network is warm once its last calls are no longer faster than the ones before them by more than this factor."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Median and quartiles of the times of single calls, in milliseconds; a call takes all images of the batch."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    calls: int


def time_interleaved(
    predictors: Mapping[str, Predictor], images: Images, repeats: int, clock: Clock = time.perf_counter_ns
) -> dict[str, Timing]:
    """Time networks turn by turn in one process, so that what disturbs the machine disturbs them alike.

    Each network is warmed up first, until it gets no faster. Then come `repeats` turns of every network, each of one
    call that does not count and as many counted ones as fill `TURN_NS`. Who begins changes from round to round, and
    the garbage collector rests.

    Args:
        predictors: the networks by name.
        images: one batch, shape (N, C, H, W).
        repeats: turns of each network.
        clock: gives nanoseconds; it must never run backwards.

    Returns:
        For each name the statistics of its single calls.

    """
    names = list(predictors)
    calls: dict[str, list[int]] = {name: [] for name in names}
    with _no_garbage_collection():
        lengths = {name: _calls_a_turn(_warm(predictors[name], images, clock)) for name in names}
        for turn in range(repeats):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                predictors[name](images)
                calls[name] += _timed(predictors[name], images, lengths[name], clock)
    return {name: _timing(spent) for name, spent in calls.items()}


def _warm(predictor: Predictor, images: Images, clock: Clock) -> float:
    """Call until calls get no faster, or for `WARM_LIMIT_NS`; returns the nanoseconds of a warm call."""
    started = clock()
    former = statistics.median(_timed(predictor, images, WARM_CALLS, clock))
    while clock() - started < WARM_LIMIT_NS:
        latter = statistics.median(_timed(predictor, images, WARM_CALLS, clock))
        if latter >= SETTLED * former:
            return latter
        former = latter
    return former


def _calls_a_turn(call_ns: float) -> int:
    return max(1, -int(-TURN_NS // max(1.0, call_ns)))


def _timed(predictor: Predictor, images: Images, calls: int, clock: Clock) -> list[int]:
    """Nanoseconds of each of so many calls."""
    spent: list[int] = []
    for _ in range(calls):
        before = clock()
        predictor(images)
        spent.append(clock() - before)
    return spent


def _timing(spent: Sequence[int]) -> Timing:
    q1, median, q3 = (float(value) for value in np.percentile(np.array(spent) / 1e6, (25, 50, 75)))
    return Timing(median, q1, q3, len(spent))


@contextmanager
def _no_garbage_collection() -> Generator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
