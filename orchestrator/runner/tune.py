"""Ray Tune as the executor. Ray lives in a process of its own: its cores end their process where they lose Ray."""

import contextlib
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import IO

from orchestrator.errors import InterruptedRunError, RunError
from orchestrator.runner.base import Driver, RunnerBrokenError
from orchestrator.runner.messages import (
    LOW_MEMORY,
    Alive,
    Broken,
    Ended,
    Order,
    Over,
    Ready,
    Refused,
    Reported,
    Take,
    Wait,
    Word,
)
from orchestrator.runner.task import Death, Task, Workplace
from orchestrator.spec.resources import Demand

START_S = 300.0
"""Ray starts in seconds, on a machine that is busy with other work in minutes."""

SILENT_S = 150.0
"""Tune's loop turns ten times a second; Ray itself gives up on a lost head after a minute."""

END_S = 30.0
LOOK_EVERY_S = 0.5
NOTE_S = 1.0
"""How long a note of a death may be on its way."""

RAY_ENDED_IT = "Ray's memory monitor ended its process: the machine ran low on memory"

CONNECT_S = 10.0
RECONNECT_S = 60.0


class TuneRunner:
    """Runs tasks on Ray: a local one, started and stopped here, or a cluster at `address`."""

    def __init__(self, place: Workplace, demands: Sequence[Demand], cores: int, address: str | None = None) -> None:
        self._order = Order(place, tuple(demands), cores, address)
        self._place = place
        self._joined = False

    def run(self, driver: Driver) -> None:
        """Run until nothing is left or the driver drains.

        Raises:
            RunError: Ray does not start, no cluster answers at the address, or none of its machines has what is asked.
            InterruptedRunError: the cluster was there, and is gone.
            RunnerBrokenError: Ray or Tune failed; what was committed stays.

        """
        if self._joined and self._order.address:
            self._await_cluster(self._order.address)
        with _host(self._order) as host:
            tasks: dict[str, Task] = {}
            try:
                self._serve(driver, host, tasks)
            except RunnerBrokenError as error:
                self._bury(driver, list(tasks.values()), str(error))
                raise

    def _serve(self, driver: Driver, host: "_Host", tasks: dict[str, Task]) -> None:
        """Answer the host until it is done; `tasks` are those that are with the workers."""
        while True:
            word = host.hear(SILENT_S if self._joined else START_S)
            match word:
                case Ready():
                    self._joined = True
                    driver.begin(sum(word.workers.values()), word.most_memory)
                case Take():
                    host.say(self._answer(driver, tasks))
                case Reported():
                    driver.commit(word.records)
                case Ended():
                    self._ended(driver, tasks.pop(word.task), word)
                    host.say(Over() if driver.finished else Wait())
                case Refused():
                    raise RunError(word.reason)
                case Broken():
                    raise RunnerBrokenError(word.reason)
                case Over():
                    tasks.clear()
                    return
                case Alive():
                    pass

    @staticmethod
    def _answer(driver: Driver, tasks: dict[str, Task]) -> Task | Wait | Over:
        if driver.draining or driver.finished:
            return Over()
        task = driver.take()
        if task is None:
            return Wait()
        tasks[task.name] = task
        return task

    def _ended(self, driver: Driver, task: Task, word: Ended) -> None:
        """A worker that died leaves a note, or its guard does; neither knows that it was Ray that ended it."""
        if word.low_memory:
            driver.lost(task, Death("oom", RAY_ENDED_IT))
        elif word.fault is not None:
            driver.lost(task, self._noted(task, NOTE_S) or Death("lost", word.fault))
        else:
            driver.hand_back(task)  # what was not begun, as the worker was told to end or to drain
        self._place.note(task.name).unlink(missing_ok=True)

    def _bury(self, driver: Driver, tasks: Sequence[Task], broken: str) -> None:
        """Ray is gone, and all workers with it: of some it was noted that they died of themselves.

        Where Ray's memory monitor kills a worker Tune breaks, and the others die when it does.
        """
        found = {task.name: self._noted(task, NOTE_S if task is tasks[0] else 0) for task in tasks}
        noted = {name: death for name, death in found.items() if death is not None}
        if LOW_MEMORY in broken and noted:
            first = min(noted, key=lambda name: noted[name].at or math.inf)
            noted[first] = Death("oom", RAY_ENDED_IT)
        for task in tasks:
            death = noted.get(task.name)
            if death is not None and death.failure != "lost":
                driver.lost(task, death)
            else:
                driver.hand_back(task)
            self._place.note(task.name).unlink(missing_ok=True)

    def _noted(self, task: Task, patience_s: float) -> Death | None:
        """What was noted of the death of a task's worker."""
        note, deadline = self._place.note(task.name), time.monotonic() + patience_s
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            found = json.loads(note.read_text())
            return Death(found["failure"], str(found["reason"]), float(found["at"]))
        except (OSError, ValueError, KeyError):
            return None

    def _await_cluster(self, address: str) -> None:
        """Wait for a cluster that was there and is not; its head may be on its way back."""
        deadline = time.monotonic() + RECONNECT_S
        while not _answers(address):
            if time.monotonic() > deadline:
                raise InterruptedRunError(
                    f"--address {address}: the cluster does not answer any more. What is finished is kept: start the "
                    "cluster again, or name another one, and give the same command."
                )
            time.sleep(1.0)


def _answers(address: str) -> bool:
    if address == "auto":
        return True
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


class _Host:
    """The process that runs Ray, from the driver's side."""

    def __init__(self, process: "subprocess.Popen[bytes]", wire: Connection, said: IO[bytes]) -> None:
        self._process = process
        self._wire = wire
        self._said = said

    def hear(self, patience_s: float) -> Word:
        """The next word.

        Raises:
            RunnerBrokenError: the process is gone, or says nothing for so long.

        """
        deadline = time.monotonic() + patience_s
        try:
            while not self._wire.poll(LOOK_EVERY_S):
                if time.monotonic() > deadline:
                    raise RunnerBrokenError(f"Ray said nothing for {patience_s:g} s")
            return self._wire.recv()
        except (EOFError, OSError) as error:
            raise RunnerBrokenError(f"Ray's process is gone{self._last_words()}") from error

    def say(self, word: Task | Wait | Over) -> None:
        """An answer; a host that is gone is noticed when it is next heard."""
        with contextlib.suppress(OSError):
            self._wire.send(word)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if "state-dump" not in line]
        return f"; it last said: {lines[-1].strip()[:300]}" if lines else ""


@contextlib.contextmanager
def _host(order: Order) -> Generator[_Host]:
    """The process for the time of a run; it ends with the wire. Ctrl-C does not reach it: that is for the driver."""
    ours, theirs = Pipe()
    with tempfile.TemporaryFile() as said, ours:
        command = [sys.executable, "-m", "orchestrator.runner.ray_host", str(theirs.fileno())]
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=[theirs.fileno()], stdout=said, stderr=said, start_new_session=True
        )
        theirs.close()
        ours.send(order)
        ended = False
        try:
            yield _Host(process, ours, said)
            ended = True
        finally:
            ours.close()
            _await_end(process, END_S if ended else 0.0)


def _await_end(process: "subprocess.Popen[bytes]", patience_s: float) -> None:
    """Let Ray be shut down in order, or kill the process; what it started dies with it."""
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
