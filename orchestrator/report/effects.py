"""What each axis does to each objective, alone and with a second one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.bins import MOST_BINS, binned_places
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.repeats import t_quantile
from orchestrator.analysis.rows import equals, hashable, numbers
from orchestrator.report.plain import plains
from orchestrator.report.settings import Sampled, Settings

MOST_VALUES = 20
"""Values of an axis told apart; more numbers are put into bins, more names are cut off."""

MOST_AXES = 8
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Steps:
    """The values of one axis: a number for each row, -1 for none, and what each stands for.

    `at` says where a value stands on an axis of numbers, empty where there is none, and `log` whether that is
    logarithmic. `edges` are those of bins, one more than values; `cut` tells that rare names were left out.
    """

    name: str
    code: npt.NDArray[np.int64]
    values: list[Any]
    at: list[Any] = field(default_factory=list[Any])
    log: bool = False
    edges: list[Any] = field(default_factory=list[Any])
    cut: bool = False


def effects(
    trials: pd.DataFrame, settings: Settings, objectives: Sequence[Objective], *, adaptive: bool = False
) -> dict[str, Any]:
    """Means over all complete cells with a value of an axis, and over those with values of two.

    The mean at a value is that of its seeds' means, and its interval Student's over the seeds (95 %): how sure the mean
    is, not how widely the cells lie. One seed has no interval. With `adaptive` repeats a later seed has the good
    settings alone, so that seeds do not compare: each setting then counts once, by its mean, and there is no interval.
    """
    rows = trials.loc[equals(trials, "role", "cell") & equals(trials, "status", "complete")]
    if adaptive:
        cells = settings.table.loc[(settings.table["role"] == "cell") & settings.table["n_seeds"].notna()]
        rows = cells.assign(seed=0)
    names = [one.column for one in objectives]
    values = pd.DataFrame({name: numbers(rows, name) for name in names}).replace([np.inf, -np.inf], np.nan)
    axes = [steps(rows, name, settings.sampled.get(name)) for name in settings.axes[:MOST_AXES]]
    told = ("name", "values", "at", "log", "edges", "cut")
    return {
        "axes": [{name: getattr(axis, name) for name in told} for axis in axes],
        "of": len(settings.axes),
        "adaptive": adaptive,
        "alone": [_alone(axis, rows["seed"].to_numpy(), values) for axis in axes],
        "together": [_together(i, j, axes, values) for i, j in combinations(range(len(axes)), 2)],
    }


def steps(rows: pd.DataFrame, name: str, sampled: Sampled | None = None) -> Steps:
    """The values of an axis in their order; a null is one, the last. Numbers that were drawn are put into bins."""
    column = hashable(rows[name])
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    log = sampled is not None and bool(sampled.log)
    if numeric and column.nunique() > (MOST_VALUES if sampled is None else MOST_BINS):
        return _bins(name, numbers(rows, name), sampled)
    # Names stay in the order of the table, which is the study's.
    codes, found = pd.factorize(column, sort=numeric)
    values = plains(found)
    if len(values) > MOST_VALUES:
        common = np.sort(np.argsort(-np.bincount(codes[codes >= 0]), kind="stable")[:MOST_VALUES])
        place = np.full(len(values) + 1, -1)
        place[common] = np.arange(len(common))
        return Steps(name, place[codes], [values[i] for i in common], cut=True)
    at = values if numeric and not (codes < 0).any() else []
    if (codes < 0).any():
        codes, values = np.where(codes < 0, len(values), codes), [*values, None]
    return Steps(name, codes.astype(np.int64), values, at, log)


def _bins(name: str, column: npt.NDArray[np.float64], sampled: Sampled | None) -> Steps:
    """Bins of equal width, or of equal width in log where the axis was drawn so or spans much."""
    if sampled is None:
        places = binned_places(column)
    else:
        places = binned_places(column, low=sampled.low, high=sampled.high, log=sampled.log)
    low, high = places.edges[:-1], places.edges[1:]
    log = bool(low[0] > 0 and not np.allclose(np.diff(places.edges), high[0] - low[0]))
    middles = np.sqrt(low * high) if log else (low + high) / 2
    return Steps(name, places.codes, [*places.labels], plains(middles), log, plains(places.edges))


def _alone(axis: Steps, seed: npt.NDArray[Any], values: pd.DataFrame) -> dict[str, Any]:
    keep = axis.code >= 0
    groups = values.loc[keep].groupby([axis.code[keep], seed[keep]])
    of_seeds = groups.mean().groupby(level=0)
    places = range(len(axis.values))
    mean, std, n = (table.reindex(places) for table in (of_seeds.mean(), of_seeds.std(), of_seeds.count()))
    found: dict[str, Any] = {}
    for name in values.columns:
        half = [_half(float(s), int(c) if c == c else 0) for s, c in zip(std[name], n[name], strict=True)]
        found[str(name)] = {"mean": plains(mean[name]), "half": plains(half)}
    counts = np.bincount(axis.code[keep], minlength=len(axis.values))
    return {"axis": axis.name, "cells": counts.tolist(), "objectives": found}


def _half(std: float, n: int) -> float:
    """Half the width of Student's interval of a mean over n seeds."""
    return t_quantile(CONFIDENCE, n - 1) * std / math.sqrt(n) if n > 1 else math.nan


def _together(i: int, j: int, axes: Sequence[Steps], values: pd.DataFrame) -> dict[str, Any]:
    """Means at each pair of values, rows along the second axis; null where no cell is."""
    across, up = axes[i], axes[j]
    keep = (across.code >= 0) & (up.code >= 0)
    means = values.loc[keep].groupby([up.code[keep], across.code[keep]]).mean()
    z: dict[str, list[list[Any]]] = {}
    for name in values.columns:
        grid = np.full((len(up.values), len(across.values)), np.nan)
        if len(means):
            at = np.array(means.index.to_list())
            grid[at[:, 0], at[:, 1]] = means[name].to_numpy()
        z[str(name)] = [plains(row) for row in grid]
    return {"x": i, "y": j, "z": z}
