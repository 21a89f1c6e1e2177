"""Waiting for what another process does."""

import time
from collections.abc import Callable


def until(true: Callable[[], bool], within_s: float = 240.0) -> None:
    """Return once `true()`.

    Raises:
        AssertionError: it was not within `within_s` seconds.

    """
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s:g} s"
        time.sleep(0.2)
