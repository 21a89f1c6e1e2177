"""Empirical attainment surfaces: what a share of the seeds reaches."""

import math
from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.comparison import By, Objectives, Question, Role, compared, names
from orchestrator.analysis.dominance import losses_of, nondominated
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.rows import Floats, need
from orchestrator.errors import TableError

_MOST_OBJECTIVES = 3


def attainment(
    df: pd.DataFrame,
    level: float | Sequence[float] = 0.5,
    objectives: Objectives | None = None,
    *,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
) -> pd.DataFrame:
    """The points that so large a share of the seeds attains, and none better.

    A seed attains a point if one of its rows is at least as good in every objective. The surface of a level is the
    front of all points that are attained by at least that share of the seeds (0.5: the median surface; 1: by all;
    a level below one seed's share: by one). Its points need not be rows of the table: their coordinates are those of
    several rows.

    All rows of a seed count together, whatever their cells; a seed with fewer rows attains less. The seeds are those
    with a row that can be compared. Tolerances play no part, equal rows and their number neither, and infinite values
    are compared.

    Source: Grunert da Fonseca, Fonseca and Hall, EMO 2001; by moocore, for up to three objectives.

    Args:
        df: trials with the column `seed`.
        level: in (0, 1], one or several.
        objectives: as in `pareto.front`; at most three.
        by: columns; each combination of their values has surfaces of its own.
        select_on: as in `pareto.front`.
        role: as in `pareto.front`.

    Returns:
        A row per point: the columns of `by`, `level`, `n_seeds` (the seeds that are asked) and the objectives, each
        surface ordered by the first objective, best first. `attrs` as in `pareto.front`.

    Raises:
        TableError: as `pareto.front`; also a wrong level, more than three objectives, or no column `seed`.

    """
    levels = [level] if isinstance(level, int | float) else list(level)
    _check_levels(levels)
    taking_part = compared(df, Question(objectives, None, by, select_on, role))
    need(df, ["seed"])
    if len(taking_part.wanted) > _MOST_OBJECTIVES:
        msg = f"attainment: {len(taking_part.wanted)} objectives; surfaces are computed for at most {_MOST_OBJECTIVES}"
        raise TableError(msg)
    seeds = df["seed"].iloc[taking_part.positions].to_numpy()
    keys = [] if by is None else [by] if isinstance(by, str) else list(by)
    parts = list[pd.DataFrame]()
    for members in taking_part.groups(by):
        group = df.iloc[taking_part.positions[members[:1]]][keys]
        for one in levels:
            surface = _surface(taking_part.values[members], seeds[members], one, taking_part.wanted)
            parts.append(_framed(group, one, len(set(seeds[members].tolist())), surface, taking_part.wanted))
    empty = _framed(df.iloc[:0][keys], 0.0, 0, np.zeros((0, len(taking_part.wanted))), taking_part.wanted)
    found = pd.concat(parts, ignore_index=True) if parts else empty
    found.attrs["left_out"] = sum(taking_part.left_out.values())
    found.attrs["left_out_because"] = dict(taking_part.left_out)
    return found


def _check_levels(levels: Sequence[float]) -> None:
    wrong = [one for one in levels if not 0 < one <= 1]
    if wrong or not levels:
        msg = f"attainment: level {wrong[0] if wrong else levels!r} must lie in (0, 1], as 0.5 does for the median"
        raise TableError(msg)


def _framed(
    group: pd.DataFrame, level: float, seeds: int, surface: Floats, wanted: Sequence[Objective]
) -> pd.DataFrame:
    repeated = group.iloc[np.zeros(len(surface), dtype=np.intp)].reset_index(drop=True)
    points = pd.DataFrame(surface, columns=names(wanted))
    points.insert(0, "n_seeds", seeds)
    points.insert(0, "level", level)
    return pd.concat([repeated, points], axis=1)


def _surface(values: Floats, seeds: npt.NDArray[np.int64], level: float, wanted: Sequence[Objective]) -> Floats:
    """Points of the surface as they stand in the table, shape (points, objectives)."""
    plain = [Objective(one.column, one.direction) for one in wanted]
    losses = losses_of(values, plain)
    # The surface is made of coordinates of the points, so that their order is all that counts.
    levels = [np.unique(column, return_index=True, return_inverse=True) for column in losses.T]
    ranks = np.stack([which for _, _, which in levels], axis=1).astype(np.float64)
    which = np.unique(seeds, return_inverse=True)[1]
    count = int(which.max()) + 1
    needed = max(1, math.ceil(level * count - 1e-9))
    own = [np.unique(points[nondominated(points)], axis=0) for points in (ranks[which == i] for i in range(count))]
    points = _attained(own, needed).astype(np.intp)
    points = points[np.lexsort(points.T[::-1])]
    return np.stack([values[first[points[:, i]], i] for i, (_, first, _) in enumerate(levels)], axis=1)


def _attained(fronts: Sequence[Floats], needed: int) -> Floats:
    """The surface attained by so many of the fronts, each of shape (points, objectives)."""
    if fronts[0].shape[1] == 1:
        return np.sort([points[:, 0].min() for points in fronts])[needed - 1 : needed, None]
    sets = np.repeat(np.arange(len(fronts)) + 1, [len(points) for points in fronts])
    # moocore rounds the percentile up to the next number of sets; the middle of the step is safe from rounding.
    percentile = 100 * (needed - 0.5) / len(fronts)
    return moocore.eaf(np.concatenate(fronts), sets, percentiles=[percentile])[:, :-1]
