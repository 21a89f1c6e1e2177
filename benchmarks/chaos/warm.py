"""Drivers that begin in a moment: each is forked from a process that has loaded everything, and dies like any other.

A cold start of the command line takes seconds, which two hundred kills would mostly strike. What differs from a user's
process is that its modules are loaded; everything from the parsing of arguments on is the program's own.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks.chaos.points import PointFault, Points
from trainables.keys import Stage

PRELOADED = (
    "__main__", "benchmarks.chaos.warm", "torch", "torch_pruning", "pandas", "pyarrow.parquet", "sklearn.datasets",
    "orchestrator.cli", "orchestrator.sweep", "orchestrator.screen", "orchestrator.reports",
    "orchestrator.runner.serial", "orchestrator.analysis.load", "orchestrator.analysis.accessor",
    "orchestrator.spec.load", "trainables.stages",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Orders:
    """What a forked child does beside the command: checkpoints at every epoch, a fault at a moment of its files."""

    eager_checkpoints: bool = False
    point: PointFault | None = None


class Run:
    """A command that runs, or has run: what it said, which stages it began and ended."""

    def __init__(self, process: ForkServerProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.began_at = time.time()

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, as a shell's child has it (-9: killed); None while it runs."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> bool:
        """SIGKILL; whether it struck a process that had not ended."""
        if self._process.exitcode is None:
            self._process.kill()
        return self.wait() == -signal.SIGKILL

    @property
    def output(self) -> str:
        """All that it printed."""
        return (self._folder / "output").read_text()

    def noted(self, word: str) -> list[str]:
        """What it wrote down as `word`: `began` and `ended` stages, `point` and `struck`."""
        lines = (self._folder / "notes").read_text().splitlines()
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == word]


class Warm:
    """Starts commands."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._runs = itertools.count(1)
        # The first command waits until everything is loaded; it is not to be timed.
        self.start(["studies"], folder.parent).wait()

    def start(self, words: Sequence[object], cwd: Path, orders: Orders | None = None) -> Run:
        """Begin `orchestrator WORDS` in the folder `cwd`."""
        folder = self._folder / f"run-{next(self._runs)}"
        folder.mkdir(parents=True)
        for name in ("output", "notes"):
            (folder / name).touch()
        words = [str(word) for word in words]
        process = self._context.Process(target=_command, args=(words, cwd, folder, orders or Orders()))
        process.start()
        return Run(process, folder)


def _command(words: list[str], cwd: Path, folder: Path, orders: Orders) -> None:
    """In the child: the command line, with its output in a file."""
    os.chdir(cwd)
    output = os.open(folder / "output", os.O_WRONLY | os.O_APPEND)
    notes = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)

    def note(line: str) -> None:
        os.write(notes, f"{line}\n".encode())

    from orchestrator import checkpoints
    from orchestrator.cli import main
    from orchestrator.runner import work

    plain = work.run_stage

    def noted(stage: Stage, *rest: Any, **named: Any) -> Any:
        note(f"began {stage.key}")
        outcome = plain(stage, *rest, **named)
        note(f"ended {stage.key}")
        return outcome

    work.run_stage = noted
    if orders.eager_checkpoints:
        checkpoints.EVERY_S = 0.0
    if orders.point is not None:
        Points(orders.point, note).install()
    sys.exit(main(words))
