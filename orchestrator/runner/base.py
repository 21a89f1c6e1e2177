"""The one driver of a run, whatever executes it: what is missing, what is committed, when to stop."""

import signal
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import msgspec

from orchestrator.errors import RunError, StoreError
from orchestrator.estimate import Estimator
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, StageRecord, Stop
from orchestrator.plan import Plan
from orchestrator.rungs import RungKeeper, stopped
from orchestrator.runner.schedule import Schedule
from orchestrator.runner.task import Task
from orchestrator.table_writer import Tables, TableWriter
from trainables.keys import Stage

if TYPE_CHECKING:
    from orchestrator.growth import Growth

REBUILDS = 3


class Observer(Protocol):
    """What a screen is told while a run goes on."""

    def handed_out(self, stages: Sequence[Stage]) -> None:
        """A worker was given these stages."""

    def finished(self, records: Sequence[StageRecord], left_out: Sequence[str], remaining_s: float) -> None:
        """These stages are on disk; others below a failed one are left out; so many seconds may be left."""

    def lost(self, stages: Sequence[str], reason: str) -> None:
        """A worker died while it held these stages."""

    def draining(self) -> None:
        """No further work is handed out; what runs is finished."""

    def grown(self, plan: Plan, todo: "Missing") -> None:
        """A search added trials; so much of the whole plan is to run now."""


class Runner(Protocol):
    """Executes tasks until the driver has none left."""

    def run(self, driver: "Driver") -> None:
        """Begin `driver`, take its tasks and give it their records until none is left or it drains."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """What a run has to do: stages to run, parents before children, and records of all that is done.

    `remade` names those that were done but whose output is needed again and is gone or damaged.
    """

    stages: tuple[Stage, ...]
    done: Mapping[str, StageRecord]
    remade: tuple[str, ...] = ()


def missing(plan: Plan, records: Mapping[str, StageRecord], layout: Layout, outputs: Iterable[str] = ()) -> Missing:
    """Set difference of the plan and the ledger.

    A finished stage whose output is gone or damaged runs again where something below it still has to run, and where it
    is one of those whose `outputs` are needed for something else.
    """
    done = {key: records[key] for key in plan.stages if key in records and records[key].settled}
    for stage in plan.stages.values():
        parent = done.get(stage.parent or "")
        if parent is not None and parent.status != "complete":
            done[stage.key] = _inherited(stage, parent)
    remade: list[str] = []
    needed = {*outputs, *(stage.parent for stage in plan.stages.values() if stage.key not in done)}
    for stage in reversed(list(plan.stages.values())):
        record = done.get(stage.key)
        if record is None or stage.key not in needed or record.status != "complete":
            continue
        if layout.artifacts.read(stage.key, record.artifact_sha256) is None:
            del done[stage.key]
            remade.append(stage.key)
            needed.add(stage.parent)
    return Missing(tuple(stage for stage in plan.stages.values() if stage.key not in done), done, tuple(remade))


def _inherited(stage: Stage, parent: StageRecord) -> StageRecord:
    return StageRecord(
        key=stage.key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status=parent.status,
        failure=parent.failure, error=parent.error, busy_s=0.0, started_at=parent.started_at,
        finished_at=parent.finished_at,
    )  # fmt: skip


class Driver:
    """The state of one run: hands out tasks, commits records, keeps the tables fresh. Runners call it in one thread."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        records: Mapping[str, StageRecord],
        writer: LedgerWriter,
        observer: Observer,
        outputs: Iterable[str] = (),
        growth: "Growth | None" = None,
        tables: Tables | None = None,
    ) -> None:
        self.records = dict(records)
        self.draining = False
        self._layout = layout
        self._outputs = frozenset(outputs)
        self._drain = layout.drain(writer.run)
        self._writer = writer
        self._observer = observer
        self._workers = 1
        self._schedule: Schedule | None = None
        self._tables = tables or TableWriter(layout, plan.spec.study)
        self._growth = growth
        self._held_by: dict[str, int] = {}
        rungs = plan.spec.search.rungs
        self._rungs = RungKeeper(rungs) if rungs else None
        self._know(plan)

    def begin(self, workers: int) -> None:
        """Lay out what is to run, for so many tasks at once."""
        todo = missing(self.plan, self.records, self._layout, self._outputs)
        self._workers = workers
        self._schedule = Schedule(todo.stages, todo.done, Estimator(self.records.values()), workers)

    @property
    def schedule(self) -> Schedule:
        """What is ready, running and open."""
        if self._schedule is None:
            msg = "the driver has not begun"
            raise RuntimeError(msg)
        return self._schedule

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be handed out or awaited."""
        return self.schedule.finished and (self._growth is None or self._growth.exhausted)

    def take(self) -> Task | None:
        """The next task; None while draining or while everything left waits for running stages."""
        task = None if self.draining else self._next_task()
        if task is None:
            return None
        self._observer.handed_out(task.stages)
        if self._rungs is not None:
            task = replace(task, rungs={stage.key: self._rungs.epochs(stage.key) for stage in task.stages})
        self._held_by |= dict.fromkeys((stage.key for stage in task.stages), id(task))
        return task

    def _next_task(self) -> Task | None:
        """What is ready, else what the plan grows by; a trial that is cached whole lets it grow again."""
        task = self.schedule.take()
        while task is None and self._growth is not None and self._grown(self._growth):
            todo = missing(self.plan, self.records, self._layout, self._outputs)
            self.schedule.add(todo.stages, todo.done)
            self._observer.grown(self.plan, todo)
            task = self.schedule.take()
        return task

    def _grown(self, growth: "Growth") -> bool:
        added = growth.grow(self.records, self.schedule.open, self._workers)
        if added:
            self._know(growth.plan)
        return added

    def _know(self, plan: Plan) -> None:
        self.plan = plan
        if self._rungs is not None:
            self._rungs.know(plan)

    def commit(self, records: Sequence[StageRecord]) -> None:
        """Make finished stages durable; only then they count as done.

        Raises:
            StoreError: the ledger or the tables cannot be written, or a worker could not store an output.

        """
        fresh = [record for record in records if record.key in self.schedule.open]
        if not fresh:
            return
        final = [record for record in fresh if record.status != "paused"]
        self._writer.commit(final)
        fresh = [*final, *self._at_rungs([record for record in fresh if record.status == "paused"])]
        left_out: list[str] = []
        for record in fresh:
            self.records[record.key] = record
            left_out += self.schedule.finish(record)
            if record.settled and record.status != "stopped":
                self._layout.checkpoints.drop(record.key)
        self._observer.finished(fresh, left_out, self.schedule.open_seconds / self._workers)
        self._tables.refresh(self.plan, self.records)
        for record in fresh:
            # Nothing that is trained from here on could be kept.
            if record.failure == "storage":
                raise StoreError(record.error or "the store cannot be written")

    def _at_rungs(self, paused: Sequence[StageRecord]) -> list[StageRecord]:
        """Those of the paused stages that the study stops; the others go on."""
        over: list[StageRecord] = []
        for record in paused:
            reason = self._rungs.reached(record, self.records) if self._rungs else None
            if reason is None:
                self.schedule.resume(record.key)
                continue
            over.append(stopped(record, reason))
        self._writer.note([Stop(self.plan.spec.search_name, msgspec.structs.asdict(record)) for record in over])
        return over

    def lost(self, task: Task, reason: str) -> None:
        """A worker died: its unfinished stages go back, or fail when that happened too often."""
        # A stage that paused may be with another worker by now.
        own = [stage.key for stage in task.stages if self._held_by.get(stage.key) == id(task)]
        unfinished = [key for key in own if key in self.schedule.running]
        if not unfinished or self.draining:
            return
        self._observer.lost(unfinished, reason)
        exhausted = self.schedule.give_back(unfinished)
        self.commit([self._lost_record(key, reason) for key in exhausted])

    def drain(self) -> None:
        """Hand out no further work, and begin no further stage of what was handed out."""
        if not self.draining:
            self.draining = True
            # Where the file cannot be written, the workers still are handed nothing more.
            with suppress(OSError):
                self._drain.parent.mkdir(parents=True, exist_ok=True)
                self._drain.touch()
            self._observer.draining()

    def close(self) -> None:
        """Close the ledger and write the tables as they stand."""
        # One that stays disturbs nobody: it bears the name of this run.
        with suppress(OSError):
            self._drain.unlink(missing_ok=True)
        self._writer.close()
        self._tables.write(self.plan, self.records)

    def _lost_record(self, key: str, reason: str) -> StageRecord:
        stage, now = self.schedule.stage(key), round(time.time(), 3)
        return StageRecord(
            key=key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status="failed", failure="lost",
            error=f"the worker died {self.schedule.attempts(key)} times while it held this stage: {reason}",
            busy_s=0.0, started_at=now, finished_at=now, config=stage.own_config(), device=stage.device,
            run=self._writer.run,
        )  # fmt: skip


class Drainable(Protocol):
    """What ends early on a signal."""

    draining: bool

    def drain(self) -> None:
        """Finish what runs and begin nothing more."""
        ...


@contextmanager
def draining_on_signals(driver: Drainable) -> Generator[None]:
    """First Ctrl-C or SIGTERM drains; a second Ctrl-C stops at once (KeyboardInterrupt).

    Off the main thread, where Python knows no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def drain(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and driver.draining:
            raise KeyboardInterrupt
        driver.drain()

    before = {number: signal.signal(number, drain) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_missing(driver: Driver, runner: Runner) -> None:
    """Run what is missing; where the runner itself breaks, rebuild it from what is still missing."""
    for rebuild in range(REBUILDS):
        try:
            runner.run(driver)
        except RunnerBrokenError as error:
            if driver.draining or rebuild + 1 == REBUILDS:
                raise RunError(f"the runner broke {rebuild + 1} times, last with: {error}") from error
            continue
        if driver.finished or driver.draining:
            return


class RunnerBrokenError(Exception):
    """The machinery that runs tasks failed, not a task."""
