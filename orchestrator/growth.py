"""Trials that are added to a plan while it runs: the seam between a search that learns and the driver.

Whatever adds trials looks at finished ones alone, and at nothing but what it may (see `spec.guide`).
"""

from collections.abc import Callable, Mapping, Sequence, Set
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.compaction import trial_row
from orchestrator.ledger import Event, StageRecord
from orchestrator.lines import always_varied
from orchestrator.plan import Plan, Planner, Trial
from orchestrator.search.adaptive import uncertain
from orchestrator.spec.cells import Cell
from orchestrator.spec.guide import guiding, losses

Records = Mapping[str, StageRecord]
Row = Mapping[str, Any]
Note = Callable[[Sequence[Event]], None]


class Growth(Protocol):
    """Adds trials to a plan in the light of finished ones."""

    @property
    def plan(self) -> Plan:
        """All trials so far."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether no trial will be added any more."""
        ...

    @property
    def warm(self) -> tuple[int, int]:
        """Configs of other studies that it was told: how many, and how many of them are on the front."""
        ...

    def grow(self, records: Records, pending: Set[str], room: int) -> bool:
        """Take finished trials into account, and add trials as long as fewer than `room` configs are open.

        `pending` are the stages that are to run or to run again. Returns whether any trial was added.
        """
        ...


class Rows:
    """Finished trials as rows of the table."""

    def __init__(self, planner: Planner) -> None:
        self._varied = always_varied(planner.spec)

    def of(self, trial: Trial, records: Records, pending: Set[str] = frozenset()) -> Row | None:
        """The row of a trial; None as long as it is unfinished."""
        if not pending.isdisjoint(trial.path):
            return None
        row = trial_row(trial, records, self._varied)
        return None if row["status"] is None else row


class AdaptiveRepeats:
    """Gives configs a further seed, one at a time, until their front is settled; see `search.adaptive`.

    Each step waits for all trials of the one before, so that what is added does not depend on who was faster. Compared
    are configs that have the study's first seed and did not fail; seeds after one that is excluded are not given.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._rows = Rows(planner)
        ordered = (_without_gap(same, planner.spec.seeds) for same in planner.repeats)
        self._cells = [same for same in ordered if same]
        self._trials: list[list[Trial]] = [[planner.trial(same[0])] for same in self._cells]
        self._objectives = tuple(map(guiding, planner.spec.objectives))
        self._settled = False

    @property
    def plan(self) -> Plan:
        """All trials so far."""
        return self._planner.plan

    @property
    def exhausted(self) -> bool:
        """Whether the front is settled."""
        return self._settled

    @property
    def warm(self) -> tuple[int, int]:
        """None: a config has its first seed in this study."""
        return 0, 0

    def grow(self, records: Records, pending: Set[str], room: int) -> bool:
        """Add a further seed where one is wanted; what all wait for is not cut into smaller steps by `room`."""
        del room
        # Asked again and again while trials run: their rows are not worth making before all are finished.
        if self._settled or any(not pending.isdisjoint(trial.path) for same in self._trials for trial in same):
            return False
        rows = [[self._rows.of(trial, records) for trial in same] for same in self._trials]
        if any(row is None for same in rows for row in same):
            return False
        found = [[losses(row, self._objectives) for row in same if row is not None] for same in rows]
        compared = [number for number, same in enumerate(found) if all(one is not None for one in same)]
        values: list[npt.NDArray[np.float64]] = [np.array(found[number], dtype=np.float64) for number in compared]
        most = len(self._planner.spec.seeds)
        wanted = uncertain(values, self._objectives, most) if values else []
        added = self._add([compared[number] for number in wanted])
        self._settled = not added
        return bool(added)

    def _add(self, numbers: Sequence[int]) -> int:
        """Add the next seed of these configs; of one whose next seed is excluded there is none."""
        further: list[Cell] = []
        for number in numbers:
            same, trials = self._cells[number], self._trials[number]
            if len(trials) < len(same):
                further.append(same[len(trials)])
                trials.append(self._planner.trial(further[-1]))
        return len(self._planner.add(further))


def _without_gap(same: Sequence[Cell], seeds: Sequence[int]) -> tuple[Cell, ...]:
    """The cells of one config from the first of `seeds` on, up to one that is excluded."""
    kept = takewhile(lambda pair: pair[0].seed == pair[1], zip(same, seeds, strict=False))
    return tuple(cell for cell, _ in kept)
