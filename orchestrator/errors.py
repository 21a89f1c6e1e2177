"""What the commands may raise on purpose; the message alone is shown, and the exit code is 2.

OrchestratorError
├── SpecError      a study file or an override is wrong; carries every fault, each with its place
├── PlanError      the study is well formed but cannot be planned
├── StoreError     a results root cannot be read or written, or another version wrote it
├── TableError     a table or column that an analysis needs is absent
├── RunError       a run cannot start: resources, data, another run of the same study
│   └── InterruptedRunError   a run cannot go on, and nothing of it is lost; the exit code is 3
└── DeployError    a trial cannot be exported, or an exported network or its images cannot be used
"""

from collections.abc import Sequence
from dataclasses import dataclass


class OrchestratorError(Exception):
    """A mistake of the user or of the surroundings, told in a message that needs no traceback."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a study: where it is (1-based; 0 means unknown), which key, and what is wrong."""

    message: str
    key: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        return f"{place}{key}{self.message}"


class SpecError(OrchestratorError):
    """All faults of one study file, at once."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        noun = "problem" if len(self.faults) == 1 else "problems"
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{source}: {len(self.faults)} {noun}\n{lines}")


class PlanError(OrchestratorError):
    """The study is well formed but cannot be planned."""


class StoreError(OrchestratorError):
    """A results root cannot be read or written, or was written by another version."""


class TableError(OrchestratorError):
    """A table or a column that an analysis needs is absent or unusable."""


class RunError(OrchestratorError):
    """A run cannot start."""


class InterruptedRunError(RunError):
    """A run cannot go on for now; what was finished is kept, and the same command goes on from there."""


class DeployError(OrchestratorError):
    """A trial cannot be exported, or an exported network or its images cannot be used."""
