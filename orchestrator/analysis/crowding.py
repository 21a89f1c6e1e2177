"""How lonely each row is among those of its rank: the crowding distance of NSGA-II."""

import numpy as np
import pandas as pd

from orchestrator.analysis.comparison import By, Objectives, Over, Question, Role, compared
from orchestrator.analysis.pareto import ranks_of
from orchestrator.analysis.rows import Floats


def crowding(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
) -> pd.Series:
    """The crowding distance of each row among the rows of its rank (`pareto.rank`); larger is lonelier.

    The sum over the objectives of the gap between the next smaller and the next larger value, divided by the range
    of the finite values; infinite at the ends of an objective and beside an infinite value. Values are as they stand,
    tolerances only act on the ranks. An objective in which all rows of a rank are equal adds nothing; if all
    objectives are so, every row is an end.

    Source: Deb et al., "NSGA-II", IEEE Transactions on Evolutionary Computation 6, 2002, section III B; pymoo divides
    by the number of objectives. There the order of equal values is left open and decides who is whose neighbour. Here
    (ours) a distance is the mean over all these orders: k equal values share their gap equally, those at an end are
    all infinite, and neither the order of the rows nor that of the objectives plays a part.

    Returns:
        Numbers on the index of `df`, NaN for the rows left out; with `over="seed"` a row has that of its cell.

    Raises:
        TableError: as `pareto.front`.

    """
    taking_part = compared(df, Question(objectives, over, by, select_on, role))
    distances = np.zeros(len(taking_part.values))
    ranks = ranks_of(taking_part, by)
    for members in taking_part.groups(by):
        for level in np.unique(ranks[members]):
            own = members[ranks[members] == level]
            distances[own] = crowding_distances(taking_part.values[own])
    found, absent = taking_part.of_trials(distances, df)
    return pd.Series(np.where(absent, np.nan, found), index=df.index, name="crowding")


def crowding_distances(values: Floats) -> Floats:
    """The distances among points of one rank, shape (points, objectives) to (points,); see `crowding`."""
    if len(values) == 0:
        return np.zeros(0)
    shares = [_share(column) for column in values.T]
    varied = [share for share in shares if share is not None]
    return np.sum(varied, axis=0) if varied else np.full(len(values), np.inf)


def _share(column: Floats) -> Floats | None:
    """What one objective adds; None where all values are equal."""
    levels, which, count = np.unique(column, return_inverse=True, return_counts=True)
    if len(levels) == 1:
        return None
    finite = levels[np.isfinite(levels)]
    width = finite[-1] - finite[0] if len(finite) > 1 else 1.0
    gaps = np.full(len(levels), np.inf)
    with np.errstate(over="ignore"):
        gaps[1:-1] = (levels[2:] - levels[:-2]) / width / count[1:-1]
    return gaps[which]
