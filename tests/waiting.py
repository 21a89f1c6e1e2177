"""Waiting for what another process does."""

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def until(true: Callable[[], bool], within_s: float = 400.0) -> None:
    """Return once `true()`.

    Raises:
        AssertionError: it was not within `within_s` seconds.

    """
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s:g} s"
        time.sleep(0.2)


def finished_stages(study: Path) -> int:
    """How many stages the tables of a study know to be complete; the first tables may know of none."""
    path = study / "_stages.parquet"
    return int((pd.read_parquet(path)["status"] == "complete").sum()) if path.exists() else 0
