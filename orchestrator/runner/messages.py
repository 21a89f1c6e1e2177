"""What passes between the driver and the process that runs Ray for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.ledger import StageRecord
from orchestrator.runner.task import Workplace
from orchestrator.spec.resources import Demand

LOW_MEMORY = "running low on memory"
"""What Ray says, here or there, of a worker that its memory monitor has ended."""


@dataclass(frozen=True, slots=True)
class Order:
    """The driver's first word: where to work, on which Ray, and what workers may have to give."""

    place: Workplace
    demands: tuple[Demand, ...]
    cores: int
    address: str | None


@dataclass(frozen=True, slots=True)
class Ready:
    """Ray runs: so many workers of each demand fit beside each other; `most_memory` is of the largest machine."""

    workers: Mapping[Demand, int]
    most_memory: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The run cannot be done there, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Take:
    """Is there a task? The driver answers with one, with `Wait` or with `Over`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to hand out for the moment."""


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing will be handed out any more."""


@dataclass(frozen=True, slots=True)
class Reported:
    """Records of a task."""

    records: Sequence[StageRecord]


@dataclass(frozen=True, slots=True)
class Ended:
    """A task ended; `fault` is why, where its worker did not get through it. The driver answers `Wait` or `Over`.

    `low_memory`: Ray's memory monitor has ended the worker.
    """

    task: str
    fault: str | None = None
    low_memory: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing has happened, and Ray still runs."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Ray or Tune failed."""

    reason: str


Word = Ready | Refused | Take | Reported | Ended | Alive | Broken | Over
