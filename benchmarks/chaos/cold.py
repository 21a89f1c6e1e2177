"""Commands as a user starts them: a process of their own, with all of Ray's processes below it."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

POLL_S = 0.05
GONE_S = 180.0
"""Ample time for Ray's processes to notice that their driver is dead: its agents try to reach a head for a minute."""


class ColdRun:
    """A command that runs, or has run; of its stages nothing is written down (`noted`)."""

    def __init__(
        self,
        words: Sequence[object],
        cwd: Path,
        output: Path,
        environment: Mapping[str, str],
        group: Path | None = None,
    ) -> None:
        self._output = output
        command = [sys.executable, "-m", "orchestrator.cli", *map(str, words)]
        if group is not None:
            enter = f"echo $$ > {shlex.quote(str(group / 'cgroup.procs'))} && exec {shlex.join(command)}"
            command = ["sh", "-c", enter]
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment},
            )  # fmt: skip
        self.began_at = time.time()

    @property
    def pid(self) -> int:
        """Of the driver."""
        return self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code (-9: killed); None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Until something holds; False where the command ends or so many seconds pass before."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            if self.wait(POLL_S) is not None:
                return condition()
        return False

    def kill(self) -> bool:
        """SIGKILL to the driver alone; whether it struck."""
        self._process.kill()
        return self.wait() == -signal.SIGKILL

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the driver."""
        self._process.send_signal(number)

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._output.read_text(errors="replace")

    def noted(self, _: str) -> list[str]:
        """Nothing."""
        return []

    def family(self) -> list[psutil.Process]:
        """All processes below the driver."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def members(self, *words: str) -> list[psutil.Process]:
        """Those whose command line has one of the words in its first part."""
        return [one for one in self.family() if any(word in title(one) for word in words)]


def title(process: psutil.Process) -> str:
    """The first word of a command line; Ray's workers write there what they do."""
    with contextlib.suppress(psutil.Error):
        return (process.cmdline() or [""])[0]
    return ""


def has_ended(one: psutil.Process) -> bool:
    """Whether nothing is left of it but its number, for a parent that does not ask."""
    try:
        return one.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def survivors(family: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those of a dead driver's processes that do not end by themselves; they are ended here."""
    _, there = psutil.wait_procs(family, timeout=GONE_S)
    alive = [one for one in there if not has_ended(one)]
    for one in alive:
        with contextlib.suppress(psutil.Error):
            one.kill()
    return alive
