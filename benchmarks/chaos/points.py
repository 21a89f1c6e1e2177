"""The moments at which a process changes its files, and faults that strike at the n-th of them.

A moment is a call that creates, opens for writing, renames, removes or truncates a name below a results root, a write
of bytes, or a wait for the disk. Python's audit hook sees the first kinds wherever they are called; writes and `fsync`
have no audit event, so the few places that use them are given files and functions that count. Nothing of this is in
the program: it is put in place in a forked child, before the command begins.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["count", "kill", "full", "read-only"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AUDITED = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.truncate": "truncate"}
_ON_A_FULL_DISK = frozenset({"create", "write", "mkdir", "fsync"})
"""What fails where no byte is free: names can still be moved and removed."""


@dataclass(frozen=True, slots=True)
class PointFault:
    """Strike at the moment `at` (from 1) below `root`; `count` only writes down what the moments are.

    `kill` ends the process before the moment, a write in its middle; `full` and `read-only` let it and all that follow
    fail as a disk would.
    """

    kind: Kind
    at: int
    root: str


class Points:
    """Counts the moments of this process and strikes."""

    def __init__(self, fault: PointFault, note: Callable[[str], None]) -> None:
        self._fault = fault
        self._note = note
        self._count = 0

    def install(self) -> None:
        """Put the counting calls in place, for the rest of this process."""
        import orchestrator.ledger

        sys.addaudithook(self._audited)
        self._count_fsync()
        points = self

        class Counted(io.FileIO):
            """A file whose writes are moments."""

            def write(self, data: Any, /) -> int:
                if points.reached("write", _name(self.fileno())):
                    return super().write(points.torn(super().write, bytes(data)))
                return super().write(data)

        def counted_fdopen(descriptor: int, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if mode != "wb" or not points.concerns(_name(descriptor)):
                return plain_fdopen(descriptor, mode, *rest, **named)
            return io.BufferedWriter(Counted(descriptor, "wb"))

        plain_fdopen = os.fdopen
        os.fdopen = counted_fdopen
        _replace(orchestrator.ledger, "FileIO", Counted)

    def _count_fsync(self) -> None:
        plain = os.fsync

        def counted(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            if self.reached("fsync", _name(number)):
                self._strike("fsync")
            plain(descriptor)

        os.fsync = counted

    def concerns(self, name: str) -> bool:
        """Whether a name lies below the root."""
        return name.startswith(self._fault.root)

    def reached(self, what: str, name: str) -> bool:
        """Count a moment; whether the fault strikes at it."""
        if not self.concerns(name):
            return False
        self._count += 1
        if self._fault.kind == "count":
            self._note(f"point {self._count} {what} {Path(name).relative_to(self._fault.root)}")
            return False
        if self._fault.kind == "kill":
            return self._count == self._fault.at
        return self._count >= self._fault.at and (self._fault.kind == "read-only" or what in _ON_A_FULL_DISK)

    def torn(self, write: Callable[[bytes], int], data: bytes) -> bytes:
        """What of a write is still written: a kill and a disk that fills leave its first half."""
        if self._fault.kind == "kill":
            write(data[: len(data) // 2])
        elif self._count == self._fault.at and len(data) > 1:
            self._note("struck write")
            return data[: len(data) // 2]
        self._strike("write")
        return b""

    def _strike(self, what: str) -> None:
        self._note(f"struck {what}")
        if self._fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.EROFS if self._fault.kind == "read-only" else errno.ENOSPC
        raise OSError(number, os.strerror(number))

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        what = _AUDITED.get(event)
        if event == "open":
            flags = arguments[2]
            what = "create" if isinstance(flags, int) and flags & _WRITING else None
        if what is None:
            return
        name = _path_of(what, arguments[0])
        if name and self.reached(what, name):
            self._strike(what)


def _path_of(what: str, given: Any) -> str:
    """The path that an audited call changes; empty where it opens a descriptor or makes a folder that is there."""
    if isinstance(given, int):
        return _name(given) if what == "truncate" else ""
    path = Path(os.fsdecode(given)).absolute()
    return "" if what == "mkdir" and path.is_dir() else str(path)


def _name(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _replace(module: object, name: str, value: object) -> None:
    """Put `value` in the place of what a module has under `name`; a name that is gone is a fault of this harness."""
    getattr(module, name)
    setattr(module, name, value)
