"""What passes between driver and worker; imports no tensor library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.keys import Stage


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is handed: ready stages, and descendants that become ready inside the task.

    `parent_sha256` holds the hash of each parent that is not itself in the task; `attempts` counts from 1. `rungs` are
    the epochs at whose ends a stage may have to pause.
    """

    stages: tuple[Stage, ...]
    parent_sha256: Mapping[str, str | None]
    attempts: Mapping[str, int]
    rungs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a worker finds things and what it may use.

    While the file `drain` exists, no further stage of a task is begun. `code_folder` is searched for a user's own
    models, which stand in a task only where the plan was allowed to name them.
    """

    artifacts: Path
    drain: Path
    data_root: Path
    threads: int
    run: str
    code_folder: Path | None = None
