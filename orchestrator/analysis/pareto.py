"""Non-dominated rows of a table of trials.

A row dominates another if it is at least as good in every objective and better in one (Pareto dominance; Deb et al.,
NSGA-II, 2002, for ranks).
"""

import math
from collections.abc import Mapping, Sequence
from typing import overload

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.comparison import By, Compared, Objectives, Over, Question, Role, compared, names, told
from orchestrator.analysis.dominance import losses_of, nondominated, signs
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.rows import Floats, Mask
from orchestrator.errors import TableError


def front(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
    confidence: float = 0.95,
    seeds: Sequence[int] | None = None,
) -> pd.DataFrame:
    """The rows that no other row dominates, in the order of `df`; equal rows all stay.

    A tolerance puts the objective's values on a grid before they are compared: a linear grid of that step for an
    amount, a logarithmic one of ratio 1 + p for a percentage p. Within a grid cell values are equal, so a difference
    beyond the tolerance always counts and a smaller one counts only across the border of two cells. "Within the
    tolerance" itself is not transitive and would make the front depend on the order of the rows; the grid is fixed,
    so other rows, duplicates and order change nothing. Rows that the grid makes equal are ties: all of them stay.

    Args:
        df: trials, as `load` gives them.
        objectives: see `comparison.Question`, as `over`, `by` and `role`.
        over: "seed" compares the means of cells; the objectives then have intervals too, see `repeats.with_intervals`.
            "expected" compares what all seeds are expected to give, where cells have more seeds or fewer.
        by: columns; each combination of their values has a front of its own.
        select_on: the column that decides in place of `accuracy`, such as `val_accuracy`, so that the test accuracy of
            the members is a report and chose nothing.
        role: "cell", "baseline" or None for every row.
        confidence: of the intervals.
        seeds: of the study in its order, for "expected"; None: those of the table.

    Returns:
        The rows. `attrs["left_out"]` is the number of rows that could not be compared and `attrs["left_out_because"]`
        splits it: `status` (not complete), `mixed_hosts` (an objective is a time and the row's stages ran on different
        kinds of machines, or it was timed elsewhere than most rows), `missing` (an objective is null or NaN), and with
        `over="expected"` `gap` (an earlier seed of the cell did not run). Infinite values are compared, but for
        "expected", where they are missing.

    Raises:
        TableError: a wrong objective, or a column that is absent.

    """
    question = Question(objectives, over, by, select_on, role, seeds)
    taking_part = compared(df, question)
    return told(df, taking_part, front_mask(taking_part, by), question, confidence)


def front_mask(taking_part: Compared, by: By) -> Mask:
    """Which of the rows that take part are on the front of their group, shape (taking part,)."""
    groups = taking_part.groups(by)
    losses = losses_of(taking_part.values, taking_part.wanted)
    if len(groups) == 1:
        return nondominated(losses)
    mask = np.zeros(len(losses), dtype=np.bool_)
    for members in groups:
        mask[members] = nondominated(losses[members])
    return mask


def rank(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
) -> pd.Series:
    """The rank of each row: 0 on the front, 1 on the front of what remains without it, and so on.

    Equal rows have equal ranks; tolerances and the rows left out are those of `front`, and the latter have no rank.
    With `over="seed"` a row has the rank of its cell's mean. O(n^2 log n) at worst from three objectives on.

    Returns:
        Integers on the index of `df`, null for the rows left out.

    Raises:
        TableError: as `front`.

    """
    taking_part = compared(df, Question(objectives, over, by, select_on, role))
    ranks = pd.arrays.IntegerArray(*taking_part.of_trials(ranks_of(taking_part, by), df))
    return pd.Series(ranks, index=df.index, name="rank")


def ranks_of(taking_part: Compared, by: By) -> npt.NDArray[np.int64]:
    """The rank within its group of each row that takes part, shape (taking part,)."""
    groups = taking_part.groups(by)
    losses = losses_of(taking_part.values, taking_part.wanted)
    ranks = np.zeros(len(losses), dtype=np.int64)
    for members in groups:
        ranks[members] = moocore.pareto_rank(losses[members])
    return ranks


@overload
def hypervolume(
    df: pd.DataFrame,
    reference: Mapping[str, float],
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: None = None,
    role: Role | None = "cell",
) -> float: ...
@overload
def hypervolume(
    df: pd.DataFrame,
    reference: Mapping[str, float],
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: str | Sequence[str],
    role: Role | None = "cell",
) -> pd.Series: ...
def hypervolume(
    df: pd.DataFrame,
    reference: Mapping[str, float],
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: By = None,
    role: Role | None = "cell",
) -> float | pd.Series:
    """Volume that the rows dominate, up to a reference point, in the product of the objectives' units.

    Tolerances play no part. A row that is not better than the reference in every objective adds nothing; one that is
    and has an infinite value makes the volume infinite.
    Source: Zitzler and Thiele, PPSN 1998, by moocore.

    Args:
        df: trials, as `load` gives them.
        reference: for each objective the worst value that counts.
        objectives: as in `front`.
        over: "seed" takes the means of cells.
        by: columns; each combination of their values has a volume of its own.
        role: as in `front`.

    Returns:
        A number; with `by` a series of them, indexed by the columns of `by`.

    Raises:
        TableError: as `front`; also a reference that lacks an objective or is not finite.

    """
    taking_part = compared(df, Question(objectives, over, by, None, role))
    point = reference_of(reference, taking_part.wanted)
    groups = taking_part.groups(by)
    volumes = [volume(taking_part.values[members], point, taking_part.wanted) for members in groups]
    if by is None:
        return volumes[0] if volumes else 0.0
    keys = [by] if isinstance(by, str) else list(by)
    firsts = taking_part.table.iloc[taking_part.positions[[members[0] for members in groups]]]
    return firsts[keys].assign(hypervolume=volumes).set_index(keys)["hypervolume"]


def reference_of(given: Mapping[str, float], wanted: Sequence[Objective]) -> Floats:
    """The reference point of a volume, shape (objectives,).

    Raises:
        TableError: no mapping, an objective is absent, or a value is no finite number.

    """
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        example = ", ".join(f"{name!r}: 0" for name in names(wanted))
        raise TableError(f"hypervolume: reference {given!r} names no objectives; write {{{example}}}")
    point = np.array([float(given.get(objective.column, np.nan)) for objective in wanted])
    if not np.isfinite(point).all():
        msg = f"hypervolume: reference {dict(given)} must hold a finite number for {', '.join(names(wanted))}"
        raise TableError(msg)
    return point


def volume(values: Floats, reference: Floats, wanted: Sequence[Objective]) -> float:
    """Volume between points and a reference, both as they stand in the table."""
    losses, reference_losses = values * signs(wanted), reference * signs(wanted)
    # moocore cannot take infinities from three objectives on.
    inside = losses[(losses < reference_losses).all(axis=1)]
    if np.isinf(inside).any():
        return math.inf
    return float(moocore.hypervolume(inside, ref=reference_losses)) if len(inside) else 0.0
