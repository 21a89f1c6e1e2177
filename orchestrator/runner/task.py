"""What passes between driver and worker; imports no tensor library."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.failures import Failure
from orchestrator.spec.resources import Demand
from orchestrator.storage.places import AnyPath
from trainables.keys import Stage


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is handed: ready stages, and descendants that become ready inside the task.

    `parent_sha256` holds the hash of each parent that is not itself in the task; `attempts` counts from 1. `demands`
    are what each stage is given; a worker that has the place for one of them has it for all. `rungs` are the epochs at
    whose ends a stage may have to pause. `name` tells it from all others, also from one that held the same stages: a
    stage may be with its next worker before the last one is known to have ended.
    """

    stages: tuple[Stage, ...]
    parent_sha256: Mapping[str, str | None]
    attempts: Mapping[str, int]
    demands: Mapping[str, Demand]
    rungs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    name: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)

    @property
    def demand(self) -> Demand:
        """What the worker must have."""
        return self.demands[self.stages[0].key]


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker died, as far as anybody knows; `at` in seconds since 1970, where it was noted."""

    failure: Failure
    reason: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a worker finds things and what it may use.

    While the file `drain` exists, no further stage of a task is begun; while `drain_now` exists, those that run stop at
    the end of their epoch. In the folder `notes` it is told how a worker died, by the name of its task. `code_folder`
    is searched for a user's own models, which stand in a task only where the plan was allowed to name them.
    `stand_in` is a `package.module:function` from a stage to its outcome that is called in place of the stage, where
    the orchestration alone is looked at; no study and no command can set it.
    """

    artifacts: AnyPath
    drain: AnyPath
    data_root: AnyPath
    run: str
    notes: Path
    code_folder: Path | None = None
    stand_in: str | None = None

    @property
    def drain_now(self) -> AnyPath:
        """The file of a drain that is in a hurry."""
        return urgent(self.drain)

    def note(self, task: str) -> Path:
        """Where it is told how the worker of a task died."""
        return self.notes / f"{task}.json"


def urgent(drain: AnyPath) -> AnyPath:
    """The file that stands beside `drain` while the drain is in a hurry."""
    return drain.with_name(f"{drain.name}.now")
