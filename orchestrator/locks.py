"""One sweep a study: the lock is the kernel's, so that a killed run leaves none behind; elsewhere it is a lease."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import lease
from orchestrator.errors import StoreError
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs the study, which plan, and since when, in seconds since 1970 (UTC) by its clock."""

    digest: str
    pid: int
    host: str
    since_s: float = 0.0


UNKNOWN = Holder("", 0, "a host not known yet")

FOLLOW_EVERY_S = 1.0

NAMING_S = 0.2
"""Ample time between taking a lock and writing a name into it."""


@contextmanager
def study_lock(path: AnyPath, digest: str) -> Generator[Holder | None]:
    """Hold the lock of a study while the body runs; yields None, or who holds it already.

    Raises:
        StoreError: the results folder cannot be written.

    """
    if isinstance(path, RemotePath):
        with lease.held(path, digest) as found:
            yield _holder_of(found)
        return
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


def wait_until_free(path: AnyPath, digest: str) -> None:
    """Until nobody holds the lock, or its holder turns out to run another plan."""
    while True:
        other = _holder_of(lease.living(path)) if isinstance(path, RemotePath) else holder(path)
        if other is None or other.digest not in ("", digest):
            return
        time.sleep(FOLLOW_EVERY_S)


def holder(path: AnyPath) -> Holder | None:
    """Who holds the lock at this moment, if anyone."""
    if isinstance(path, RemotePath):
        return _holder_of(lease.seen(path))
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
    # The lock is written when it is taken.
    unknown = replace(UNKNOWN, since_s=path.stat().st_mtime)
    try:
        found = replace(unknown, **json.loads(path.read_text()))
    except (ValueError, TypeError):
        return unknown
    return found if found.host != socket.gethostname() or Path(f"/proc/{found.pid}").exists() else unknown


def _holder_of(found: "lease.Lease | None") -> Holder | None:
    return None if found is None else Holder(found.digest, found.pid, found.host, found.since_s)
