"""One sweep a study where there is no kernel to lock a file: an object that its holder renews.

That it is left by a dead holder is known by watching it for a while, not by comparing clocks. Two sweeps that begin in
the same moment, or a holder that stood still for longer than `STALE_S`, may run at once: then a stage may be run twice,
which the ledger allows for, and no file is damaged.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestrator.errors import StoreError
from orchestrator.storage.remote import RemotePath

BEAT_S = 5.0
STALE_S = 20.0
SETTLE_S = 1.0
"""The holder renews the object every `BEAT_S`, is dead after `STALE_S` without, and is sure of it after `SETTLE_S`."""

LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What the object says: which plan runs, in which process of which kernel, since when, and how often renewed."""

    digest: str
    pid: int
    host: str
    kernel: str
    token: str
    since_s: float
    beat: int = 0


@contextmanager
def held(path: RemotePath, digest: str) -> Generator[Lease | None]:
    """Hold the lease of a study while the body runs; yields None, or who holds it already.

    Raises:
        StoreError: the results root cannot be read or written.

    """
    mine = _new(digest)
    other = living(path) or _taken(path, mine)
    if other is not None:
        yield other
        return
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, ended.wait), name="lease", daemon=True)
    beating.start()
    try:
        yield None
    finally:
        ended.set()
        beating.join()
        with suppress(OSError):  # who comes next sees that nobody renews it
            if (found := _read(path)) is not None and found.token == mine.token:
                path.unlink(missing_ok=True)


def living(path: RemotePath, pause: Callable[[float], object] = time.sleep) -> Lease | None:
    """Who renews the lease; it takes up to `STALE_S` to see that nobody does.

    Raises:
        StoreError: the results root cannot be read.

    """
    first = _told(path)
    if first is None or _is_dead(first):
        return None
    for _ in range(round(STALE_S / LOOK_EVERY_S)):
        pause(LOOK_EVERY_S)
        now = _told(path)
        if now is None:
            return None
        if (now.token, now.beat) != (first.token, first.beat):
            return now
    return None


def seen(path: RemotePath) -> Lease | None:
    """Who holds the lease by all appearances, without waiting: it was renewed lately, by the clocks.

    Raises:
        StoreError: the results root cannot be read.

    """
    found = _told(path)
    if found is None or _is_dead(found):
        return None
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return found if age_s < 3 * STALE_S else None


def _taken(path: RemotePath, mine: Lease) -> Lease | None:
    """Take the lease; None, or who was faster."""
    try:
        _write(path, mine)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be written: {error.strerror}; name another --results") from error
    time.sleep(SETTLE_S)
    found = _told(path)
    return None if found is None or found.token == mine.token else found


def _beat(path: RemotePath, mine: Lease, pause: Callable[[float], bool]) -> None:
    while not pause(BEAT_S):
        # A storage that fails for a while costs a beat; one that another sweep has taken is left to it.
        with suppress(OSError):
            found = _read(path)
            if found is not None and found.token != mine.token:
                return
            mine = replace(mine, beat=mine.beat + 1)
            _write(path, mine)


def _new(digest: str) -> Lease:
    return Lease(digest, os.getpid(), socket.gethostname(), _kernel(), secrets.token_hex(8), round(time.time(), 3))


def _kernel() -> str:
    """Names the kernel and its space of process numbers; empty where it does not say."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_dead(lease: Lease) -> bool:
    """Whether its process was one of this machine, and is no more."""
    return bool(lease.kernel) and lease.kernel == _kernel() and not Path(f"/proc/{lease.pid}").exists()


def _write(path: RemotePath, lease: Lease) -> None:
    path.write_bytes(json.dumps(asdict(lease)).encode())


def _read(path: RemotePath) -> Lease | None:
    """What the object says; None where there is none, or something else."""
    try:
        return Lease(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _told(path: RemotePath) -> Lease | None:
    try:
        return _read(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
