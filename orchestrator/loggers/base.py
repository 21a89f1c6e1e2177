"""What a logger of another tool is given, and what it must be able to do. Imports nothing of any tool."""

import hashlib
import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import StoreError

Value = str | int | float | bool

RECEIPT = "trial.json"
"""Lies in each folder that a run has to itself, and says which trial in which state the folder holds."""


@dataclass(frozen=True, slots=True)
class Step:
    """The numbers of one epoch of a stage, named `<stage>/<column>`; `epoch` counts from 1 within the stage."""

    epoch: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """A trial as other tools see it: parameters, metrics, and numbers along the way.

    `params` are the leaves of the config that vary in the study, the seed among them; `metrics` the columns that have a
    better direction; `ended_s` seconds since 1970 (UTC).
    """

    study: str
    trial_id: str
    name: str
    status: str
    params: Mapping[str, Value]
    metrics: Mapping[str, float]
    steps: tuple[Step, ...]
    tags: Mapping[str, str]
    ended_s: float

    @property
    def digest(self) -> str:
        """Names the content: equal digests are the same trial in the same state."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Logger(Protocol):
    """Writes runs where one tool finds them."""

    def written(self) -> Mapping[str, str]:
        """Digests of the runs that are there in whole, by `trial_id`."""
        ...

    def write(self, run: Run) -> None:
        """Write one run, in place of the one of the same trial if there is one; a run is there in whole or not."""
        ...

    def close(self) -> None:
        """Let go of files and processes."""
        ...


@contextmanager
def whole_folder(place: Path, run: Run) -> Generator[Path]:
    """A folder to fill for one run; it stands at `place`, with its receipt, only when the body has ended well.

    Raises:
        StoreError: it cannot be written.

    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as scratch:
            filled = Path(scratch) / "new"
            filled.mkdir()
            yield filled
            (filled / RECEIPT).write_text(json.dumps({"trial_id": run.trial_id, "digest": run.digest}))
            if place.exists():
                place.rename(Path(scratch) / "old")
            filled.rename(place)
    except OSError as error:
        raise StoreError(f"{place}: cannot be written: {error.strerror or error}") from error


def receipts(folder: Path, pattern: str) -> dict[str, tuple[Path, str]]:
    """Folder and digest of each run under `folder`, by `trial_id`; folders of others have no receipt."""
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted(folder.glob(f"{pattern}/{RECEIPT}")):
        content = json.loads(path.read_text())
        found[content["trial_id"]] = path.parent, content["digest"]
    return found
