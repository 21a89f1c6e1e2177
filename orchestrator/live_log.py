"""`sweep --log`: hand trials to other tools while a study runs, in processes of their own."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from orchestrator.errors import RunError
from orchestrator.loggers.registry import LOGGERS, check_installed, check_writable
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath

DEFAULT = Path("logs")


@dataclass(frozen=True, slots=True)
class Target:
    """A tool, and the folder in which it keeps its runs."""

    tool: str
    out: Path


def target(text: str) -> Target:
    """`TO` or `TO:DIR` as an argument.

    Raises:
        ArgumentTypeError: no such tool.

    """
    tool, _, out = text.partition(":")
    if tool not in LOGGERS:
        raise argparse.ArgumentTypeError(f"{tool!r} is no tool that takes trials; valid are {', '.join(LOGGERS)}")
    return Target(tool, Path(out) if out else DEFAULT)


class LiveLogs:
    """The processes that follow one sweep, one for each target; see `loggers.follow`."""

    def __init__(self, targets: Sequence[Target], table: AnyPath) -> None:
        """Begin nothing yet.

        Raises:
            RunError: a tool is not installed, or the results are elsewhere and their URI holds a secret.
            StoreError: a folder cannot be made.

        """
        if targets and isinstance(table, RemotePath) and table.address.password:
            # The command line of a process is there for all to see.
            raise RunError("--log needs the keys of --results in the environment, not in the URI")
        for one in targets:
            check_installed(one.tool)
            check_writable(one.out)
        self._targets = targets
        self._table = table
        self._running: list[tuple[Target, subprocess.Popen[bytes], IO[bytes]]] = []

    def __enter__(self) -> Self:
        for one in self._targets:
            said: IO[bytes] = tempfile.TemporaryFile()
            command = [sys.executable, "-m", "orchestrator.loggers.follow", str(self._table), one.tool, str(one.out)]
            # A session of its own: Ctrl-C is for the sweep, whose end closes the input.
            process = subprocess.Popen(  # noqa: S603 - our own module
                command, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
            )
            self._running.append((one, process, said))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell them that the sweep has ended; they hand over what is left in their own time."""
        for _, process, said in self._running:
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
            said.close()

    def finish(self) -> list[str]:
        """Wait for the last trials to be handed over; a line for each target says how that went."""
        for _, process, _ in self._running:
            if process.stdin is not None:
                process.stdin.close()
        return [_told(*one) for one in self._running]


def _told(one: Target, process: "subprocess.Popen[bytes]", said: IO[bytes]) -> str:
    code = process.wait()
    said.seek(0)
    last = next(reversed(said.read().decode(errors="replace").strip().splitlines()), "nothing was said")
    if code == 0:
        return f"{one.out}: {last}; look at it: {LOGGERS[one.tool].look.format(out=one.out)}"
    return f"--log {one.tool} failed, the sweep did not: {last}; `orchestrator log --to {one.tool}` does it later"
