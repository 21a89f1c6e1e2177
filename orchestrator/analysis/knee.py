"""The row of a front from which gaining in one objective costs most in the others."""

import numpy as np
import pandas as pd

from orchestrator.analysis.comparison import By, Objectives, Over, Question, Role, compared, told
from orchestrator.analysis.dominance import signs
from orchestrator.analysis.pareto import front_mask
from orchestrator.analysis.rows import Floats, Mask


def knee(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    over: Over = None,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The row of the front that lies farthest from the plane through its ends, towards the ideal point.

    Each objective is put on a scale from 0, the best value on the front, to 1, the worst; the knee has the smallest
    sum. In two objectives that is the point farthest from the straight line between the ends (Das, "On characterizing
    the knee of the Pareto curve", Structural Optimization 18, 1999); with more the plane has equal intercepts, ours,
    where Das' plane through the best point of each objective may be none. The scale depends on the ends: a front that
    is extended may get another knee.

    Rows of the front with an infinite value take no part, an objective in which the front does not vary plays none,
    a single point is its own knee. Rows that tie all stay, and so do both ends of a front that bulges outwards.

    Args:
        df: as in `pareto.front`, and so are the others.
        objectives: as in `pareto.front`.
        over: as in `pareto.front`.
        by: each combination of these columns has a knee of its own.
        select_on: as in `pareto.front`.
        role: as in `pareto.front`.
        confidence: as in `pareto.front`.

    Returns:
        Usually one row, or one per group, like those of `pareto.front`; none where the front has no finite row.

    Raises:
        TableError: as `pareto.front`.

    """
    question = Question(objectives, over, by, select_on, role)
    taking_part = compared(df, question)
    on_front = front_mask(taking_part, by)
    mask = np.zeros(len(on_front), dtype=np.bool_)
    for members in taking_part.groups(by):
        own = members[on_front[members]]
        mask[own] = knee_mask(taking_part.values[own] * signs(taking_part.wanted))
    return told(df, taking_part, mask, question, confidence)


def knee_mask(losses: Floats) -> Mask:
    """Which points of one front are its knee, shape (points, objectives) to (points,); see `knee`."""
    finite = np.isfinite(losses).all(axis=1)
    mask = np.zeros(len(losses), dtype=np.bool_)
    if not finite.any():
        return mask
    own = losses[finite]
    best = own.min(axis=0)
    # Halves keep the range of the largest floats from overflowing.
    width = own.max(axis=0) / 2 - best / 2
    sums = ((own / 2 - best / 2) / np.where(width == 0, 1.0, width)).sum(axis=1)
    mask[finite] = sums == sums.min()
    return mask
