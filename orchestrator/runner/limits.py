"""Holds a stage to its memory and its time from within its process, and measures what it held."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from orchestrator.failures import Failure
from orchestrator.runner import guard
from orchestrator.spec.quantities import show_bytes
from orchestrator.spec.resources import Demand

LOOK_EVERY_S = 0.1
GRACE_S = 20.0
"""A worker that is told to end has so long for the epoch under way; machines that are asked back give about 30 s."""

KNOCK = signal.SIGVTALRM
"""Tells the main thread of a limit: nobody else uses it, and it wakes a call that waits."""


class StageStopped(BaseException):
    """The stage may not go on. No `Exception`: nothing on the way out may take it for a failure of its own."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure: Failure = failure


@dataclass(slots=True)
class Held:
    """What the process held while a stage ran, in bytes; filled in when it is over."""

    at_first: int = 0
    peak: int = 0

    @property
    def grown(self) -> int:
        """How much more that was than at the beginning."""
        return max(0, self.peak - self.at_first)


class Limits:
    """The limits of the stages of one process, one stage at a time.

    Where the stage runs in the main thread it is stopped by `StageStopped`, which no loop of Python can evade; a
    `guarded` process that evades it all the same, in a library or stopped, is killed by its guard.
    """

    def __init__(self, *, guarded: bool = False) -> None:
        self.preempted = False
        self._guarded = guarded
        self._guard: subprocess.Popen[bytes] | None = None
        self._demand: Demand | None = None
        self._held = Held()
        self._deadline: float | None = None
        self._verdict: StageStopped | None = None
        self._looker: threading.Thread | None = None
        self._tell({})  # the guard is there before anything heavy is loaded, which may stand still too

    @contextmanager
    def holding(self, demand: Demand, note: Path | None) -> Generator[Held]:
        """Hold what runs in the body to `demand`; the guard tells of the process's death in the file `note`.

        Raises:
            StageStopped: the body may not go on.

        """
        held = self._held = Held(at_first=guard.resident(os.getpid()))
        _reset_peak()
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(KNOCK, self._knocked) if in_main else None
        self._verdict = None
        self._deadline = None if demand.timeout_s is None else time.monotonic() + demand.timeout_s
        self._tell({"note": str(note), "memory": demand.memory, "timeout_s": demand.timeout_s} if note else {})
        self._look_on()
        try:
            # A stage that is short would be over before anybody looks.
            if (verdict := self._judged(demand, held.at_first)) is not None:
                raise verdict
            self._demand = demand
            yield held
        finally:
            self._demand = None
            self._tell({})
            if in_main:
                signal.signal(KNOCK, before)
            held.peak = max(held.peak, _peak(), held.at_first)

    def ask_back(self) -> None:
        """The machine is asked back: the stage is to stop at the end of its epoch, and the process with it."""
        if not self.preempted:
            self.preempted = True
            self._tell({"preempted": True})
            threading.Thread(target=_leave_after, args=(GRACE_S,), daemon=True).start()

    def _knocked(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._demand is not None and self._verdict is not None:
            raise self._verdict

    def _look_on(self) -> None:
        if self._looker is None:
            self._looker = threading.Thread(target=self._look, name="limits", daemon=True)
            self._looker.start()

    def _look(self) -> None:
        """Watch the stage that runs, for as long as the process lives."""
        pid = os.getpid()
        while True:
            demand, held = self._demand, self._held
            if demand is not None:
                rss = guard.resident(pid)
                held.peak = max(held.peak, rss)
                verdict = self._judged(demand, rss)
                if verdict is not None and self._verdict is None:
                    self._verdict = verdict
                    signal.pthread_kill(threading.main_thread().ident or 0, KNOCK)
            time.sleep(LOOK_EVERY_S)

    def _judged(self, demand: Demand, rss: int) -> StageStopped | None:
        if demand.memory is not None and rss > demand.memory:
            given = f"of the {show_bytes(demand.memory)} that resources.memory gives it"
            return StageStopped("oom", f"its process held {show_bytes(rss)} {given}")
        if self._deadline is not None and time.monotonic() > self._deadline:
            return StageStopped("timeout", f"it took longer than the {demand.timeout_s:g} s of resources.timeout")
        return None

    def _tell(self, order: dict[str, object]) -> None:
        """Tell the guard, which is started with the first word; without one only the kinder ways are left."""
        if not self._guarded:
            return
        with suppress(OSError):
            if self._guard is None:
                command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid())]
                self._guard = subprocess.Popen(  # noqa: S603 - our own module
                    command, stdin=subprocess.PIPE, start_new_session=True
                )
            if self._guard.stdin is not None:
                self._guard.stdin.write(json.dumps(order).encode() + b"\n")
                self._guard.stdin.flush()


def _leave_after(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(1)


def _reset_peak() -> None:
    """Let the kernel forget what the process held before."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most that the process has held since `_reset_peak`; 0 where the kernel does not say."""
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return 0


@contextmanager
def asked_back_by_signals(limits: Limits) -> Generator[None]:
    """SIGTERM and SIGUSR1 ask the process back; off the main thread, where Python knows no signals, nothing does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: Callable[[int, FrameType | None], None] = lambda *_: limits.ask_back()  # noqa: E731
    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
