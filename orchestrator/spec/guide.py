"""What a search may look at: validation columns and costs, never a test image.

An objective on `accuracy` is read as `val_accuracy`; other columns that rest on test images are refused, and so are
latencies, which are taken after all training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.tables import COLUMNS, LATENCIES, TEST_COLUMNS, is_config_column
from orchestrator.spec.leaves import uncompared

VALIDATED: Mapping[str, str] = {"accuracy": "val_accuracy"}


class GuideError(ValueError):
    """A column that may not guide a search."""


def guiding(objective: Objective) -> Objective:
    """The objective as a search reads it.

    Raises:
        GuideError: the column rests on test images, is measured after all training, or is no number of a trial.

    """
    column = VALIDATED.get(objective.column, objective.column)
    if column in TEST_COLUMNS:
        raise GuideError("rests on test images, on which nothing is chosen; let the search see accuracy or a cost")
    if column in LATENCIES:
        raise GuideError("is measured after all training, too late to guide a search; macs or packed_bytes are known")
    if is_config_column(column):
        if why := uncompared(column):
            raise GuideError(why)
    elif column not in COLUMNS or COLUMNS[column].direction is None:
        raise GuideError("is no column with a better direction, so that it cannot guide a search")
    return replace(objective, column=column)


def losses(row: Mapping[str, Any], objectives: Sequence[Objective]) -> list[float] | None:
    """The objectives of a finished trial, all to be made small; None where one is missing or not finite."""
    found: list[float] = []
    for one in map(guiding, objectives):
        value = row.get(one.column)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
        found.append(one.sign * float(value))
    return found
