"""What a front is taken over: columns, their directions and how large a difference must be to count."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from orchestrator.analysis.tables import COLUMNS, Direction, is_config_column, suggestion
from orchestrator.errors import TableError

DEFAULT_OBJECTIVES: Mapping[str, object] = {"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}}


@dataclass(frozen=True, slots=True)
class Objective:
    """One column to be made large or small.

    `tolerance` is in the column's unit, or a share of the value where `relative` (0.05 for 5 %); 0 means that every
    difference counts.
    """

    column: str
    direction: Direction
    tolerance: float = 0.0
    relative: bool = False

    @property
    def sign(self) -> float:
        """What makes a value a loss: -1 where large is better, else 1."""
        return -1.0 if self.direction == "max" else 1.0


def parse_objectives(mapping: Mapping[str, object], *, also: Iterable[str] = ()) -> tuple[Objective, ...]:
    """Objectives from `{"accuracy": "max", "macs": {"min": 1000}, "wall_time_s": {"min": "5%"}}`.

    A value is a direction, or a direction with a tolerance: a number in the column's unit or a percentage of the value.
    Known are the columns of the column table, config leaves, and the names in `also`.

    Raises:
        TableError: no objectives, an unknown column or direction, a direction that contradicts the column table, or a
            tolerance that is no finite number >= 0.

    """
    if not isinstance(mapping, Mapping) or not mapping:  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"objectives: {mapping!r} names no column; write for example {{accuracy: max, wall_time_s: {{min: 5%}}}}"
        raise TableError(msg)
    known = frozenset(also)
    return tuple(_objective(str(column), wanted, known) for column, wanted in mapping.items())


def objective_of(column: str, *, also: Iterable[str] = ()) -> Objective:
    """The objective of a column in the direction that the column table gives it.

    Raises:
        TableError: an unknown column, or one for which the table has no better direction.

    """
    known = frozenset(also)
    _check_column(column, known)
    better = COLUMNS[column].direction if column in COLUMNS else None
    if better is None:
        msg = f"objective {column}: the column table has no direction for it; write {{{column!r}: 'max'}} or 'min'"
        raise TableError(msg)
    return Objective(column, better)


def _objective(column: str, wanted: object, also: frozenset[str]) -> Objective:
    _check_column(column, also)
    direction, tolerance = _split(column, wanted)
    better = COLUMNS[column].direction if column in COLUMNS else direction
    if better != direction:
        msg = f"objective {column}: {direction} contradicts the column table, where {better} is better; write {better}"
        raise TableError(msg)
    amount, relative = _tolerance(column, tolerance)
    return Objective(column, direction, amount, relative)


def _check_column(column: str, also: frozenset[str]) -> None:
    if column in COLUMNS:
        if COLUMNS[column].direction is None:
            msg = f"objective {column}: this column has no better direction; valid are {', '.join(_directed())}"
            raise TableError(msg)
    elif column not in also and not is_config_column(column):
        near = suggestion(column, [*_directed(), *also])
        msg = f"objective {column}: unknown column{near or '; valid are ' + ', '.join(_directed())}"
        raise TableError(msg)


def _directed() -> list[str]:
    return [name for name, column in COLUMNS.items() if column.direction]


def _split(column: str, wanted: object) -> tuple[Direction, object]:
    direction, tolerance = wanted, 0
    if isinstance(wanted, Mapping):
        if len(wanted) != 1:
            msg = f"objective {column}: {dict(wanted)!r} must hold one direction and its tolerance, as in {{min: 5%}}"
            raise TableError(msg)
        direction, tolerance = next(iter(cast("Mapping[object, object]", wanted).items()))
    if direction not in ("max", "min"):
        msg = f"objective {column}: unknown direction {direction!r}; valid are max and min"
        raise TableError(msg)
    return direction, tolerance


def _tolerance(column: str, given: object) -> tuple[float, bool]:
    """(amount, relative); '5%' is (0.05, True), 0.01 and '0.01' are (0.01, False)."""
    text = str(given).strip()
    relative = isinstance(given, str) and text.endswith("%")
    try:
        amount = float(text.removesuffix("%") if relative else text)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount >= 0):
        unit = COLUMNS[column].unit if column in COLUMNS else ""
        msg = (
            f"objective {column}: tolerance {given!r} is neither a number >= 0{f' ({unit})' if unit else ''} "
            "nor a percentage such as '5%'"
        )
        raise TableError(msg)
    return (amount / 100, True) if relative else (amount, False)
