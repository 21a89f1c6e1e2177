"""Removal of what was found, while no sweep begins."""

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.errors import RunError, StoreError
from orchestrator.layout import Layout
from orchestrator.locks import holder, study_lock
from orchestrator.retention.rubbish import Piece

GC_LOCK = "_gc"
"""No study has a name like this."""

LOOK_EVERY_S = 0.2


@contextmanager
def alone(layout: Layout) -> Generator[None]:
    """While the body runs no sweep begins, and nobody else removes.

    A sweep takes its own lock and then waits for this one: whoever holds this one sees by their locks all sweeps that
    have begun.

    Raises:
        RunError: somebody else removes.
        StoreError: the results root cannot be written.

    """
    with study_lock(layout.lock(GC_LOCK), "") as other:
        if other is not None:
            raise RunError(f"process {other.pid} on {other.host} removes things from {layout.root}; wait for it")
        yield


def wait_for_removal(layout: Layout) -> None:
    """Until nobody removes things from the root."""
    while holder(layout.lock(GC_LOCK)) is not None:
        time.sleep(LOOK_EVERY_S)


@dataclass(frozen=True, slots=True)
class Removed:
    """How many files went, and their bytes."""

    files: int = 0
    bytes: int = 0


def remove(layout: Layout, pieces: Iterable[Piece]) -> Removed:
    """Remove files; one that is gone already is no fault.

    Raises:
        StoreError: one cannot be removed.

    """
    files = size = 0
    for piece in pieces:
        path = layout.root / piece.path
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be removed: {error.strerror}; {files:,} files are gone already"
            ) from error
        files += 1
        size += piece.bytes
    return Removed(files, size)
