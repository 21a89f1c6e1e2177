"""One sweep a study: the lock is the kernel's, so that a killed run leaves none behind."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import StoreError


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs the study, and which plan."""

    digest: str
    pid: int
    host: str


UNKNOWN = Holder("", 0, "a host not known yet")

NAMING_S = 0.2
"""Ample time between taking a lock and writing a name into it."""


@contextmanager
def study_lock(path: Path, digest: str) -> Generator[Holder | None]:
    """Hold the lock of a study while the body runs; yields None, or who holds it already.

    Raises:
        StoreError: the results folder cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be written: {error.strerror}; name another --results") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _holder(path)
            return
        os.ftruncate(descriptor, 0)
        text = json.dumps({"digest": digest, "pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(descriptor, text.encode(), 0)
        yield None
    finally:
        os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock at this moment, if anyone."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(path)
    return None


def _holder(path: Path) -> Holder:
    """Who wrote its name into the lock; UNKNOWN while a new holder has not, and a killed one's name still stands."""
    time.sleep(NAMING_S)
    try:
        found = Holder(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return UNKNOWN
    return found if found.host != socket.gethostname() or Path(f"/proc/{found.pid}").exists() else UNKNOWN
