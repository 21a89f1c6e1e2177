"""The one driver of a run, whatever executes it: what is missing, what is committed, when to stop."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from orchestrator.errors import InterruptedRunError, StoreError
from orchestrator.estimate import Estimator
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, Repeated, StageRecord, Stop
from orchestrator.plan import Plan
from orchestrator.rungs import RungKeeper, stopped
from orchestrator.runner.retries import Retries, is_settled
from orchestrator.runner.same_errors import SameErrors
from orchestrator.runner.schedule import Schedule
from orchestrator.runner.task import Death, Task
from orchestrator.runner.task import urgent as urgent_file
from orchestrator.spec.resources import Demand
from orchestrator.storage.secrets import redacted
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

    def retried(self, record: StageRecord, demand: Demand) -> None:
        """An attempt failed; the stage is handed out again, and given so much then."""

    def handed_back(self, stages: Sequence[str]) -> None:
        """These stages had not begun when their worker was lost; they are handed out again."""

    def warned(self, message: str) -> None:
        """Something is odd but does not stop the run."""

    def stopping(self, reason: str) -> None:
        """The sweep ends early for this reason; what runs is finished."""

    def draining(self, urgent: bool) -> None:
        """No further work is handed out; what runs is finished, or where it is `urgent` stops at its epoch's end."""

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


def missing(
    plan: Plan,
    records: Mapping[str, StageRecord],
    layout: Layout,
    outputs: Iterable[str] = (),
    *,
    given_up: Collection[str] = (),
    retry_failed: bool = False,
) -> Missing:
    """Set difference of the plan and the ledger.

    A finished stage whose output is gone or damaged runs again where something below it still has to run, and where it
    is one of those whose `outputs` are needed for something else. A stage that failed runs again where what the study
    gives it now may mend that, but for those `given_up`; with `retry_failed` also where it has no more than before.
    """
    resources, rules = plan.spec.resources, plan.spec.retry

    def is_done(record: StageRecord) -> bool:
        settled = record.settled if retry_failed else is_settled(record, resources, rules)
        return settled or record.key in given_up

    done = {key: records[key] for key in plan.stages if key in records and is_done(records[key])}
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
        if not layout.artifacts.intact(stage.key, record.artifact_sha256, record.artifact_bytes):
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
        *,
        stop_after_same: int | None = None,
        retry_failed: bool = False,
    ) -> None:
        self.records = dict(records)
        self.draining = False
        self.stopped_by: str | None = None
        self.retries = Retries(plan.spec.retry, plan.spec.resources)
        self._layout = layout
        self._outputs = frozenset(outputs)
        self._urgent = False
        self._committed = 0
        self._drain = layout.drain(writer.run)
        self._writer = writer
        self._observer = observer
        self._workers = 1
        self._schedule: Schedule | None = None
        self._tables = tables or TableWriter(layout, plan.spec.study)
        self._growth = growth
        self._same = SameErrors(stop_after_same)
        self._given_up: set[str] = set()
        self._retry_failed = retry_failed
        self._held_by: dict[str, int] = {}
        self._repeated = Repeated()
        rungs = plan.spec.search.rungs
        self._rungs = RungKeeper(rungs) if rungs else None
        self._know(plan)
        for record in records.values():
            self.retries.needs.learn(record)

    def begin(self, workers: int, most_memory: int | None = None) -> None:
        """Lay out what is to run, for so many tasks at once; `most_memory` are the bytes of the largest machine."""
        todo = self._todo()
        self._workers, self.retries.most_memory = workers, most_memory
        estimator = Estimator(self.records.values())
        self._schedule = Schedule(todo.stages, todo.done, estimator, workers, self.retries)

    def _todo(self) -> Missing:
        return missing(
            self.plan, self.records, self._layout, self._outputs,
            given_up=self._given_up, retry_failed=self._retry_failed,
        )  # fmt: skip

    @property
    def schedule(self) -> Schedule:
        """What is ready, running and open."""
        if self._schedule is None:
            msg = "the driver has not begun"
            raise RuntimeError(msg)
        return self._schedule

    @property
    def progress(self) -> int:
        """How many records, of attempts too, were committed."""
        return self._committed

    @property
    def finished_or_drained(self) -> bool:
        """Whether a runner has nothing to do."""
        return self.draining or self.finished

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be handed out or awaited; not so before a runner has begun."""
        if self._schedule is None:
            return False
        return self._schedule.finished and (self._growth is None or self._growth.exhausted)

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
            todo = self._todo()
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
        """Make finished stages durable; only then they count as done. A failed one may be handed out again.

        Raises:
            StoreError: the ledger or the tables cannot be written, or a worker could not store an output.

        """
        fresh = [record for record in records if record.key in self.schedule.open]
        if not fresh:
            return
        self._committed += len(fresh)
        over = self._without_retried([record for record in fresh if record.status != "paused"])
        self._writer.commit(over)
        over += self._at_rungs([record for record in fresh if record.status == "paused"])
        left_out: list[str] = []
        for record in over:
            self._learn(record)
            left_out += self.schedule.finish(record)
            if record.settled and record.status != "stopped":
                self._layout.checkpoints.drop(record.key)
        self._observer.finished(over, left_out, self.schedule.open_seconds / self._workers)
        self._tables.refresh(self.plan, self.records)
        for record in over:
            # Nothing that is trained from here on could be kept.
            if record.failure == "storage":
                raise StoreError(record.error or "the store cannot be written")

    def _learn(self, record: StageRecord) -> None:
        stage = self.plan.stages[record.key]
        self.records[stage.key] = self._repeated.shared(record)
        msgspec.structs.force_setattr(record, "key", stage.key)
        msgspec.structs.force_setattr(record, "parent", stage.parent)
        self._held_by.pop(stage.key, None)
        self.retries.needs.learn(record)
        if record.status == "failed":
            self._given_up.add(record.key)
            if (reason := self._same.seen(record)) and self.stopped_by is None:
                self.stopped_by = reason
                self._observer.stopping(reason)
                self.drain()

    def _without_retried(self, records: Sequence[StageRecord]) -> list[StageRecord]:
        """Those of the records that stand; the stages of the others are ready again, and the attempt is noted."""
        over: list[StageRecord] = []
        again: list[tuple[StageRecord, Demand]] = []
        for found in records:
            stage = self.schedule.stage(found.key)
            record = msgspec.structs.replace(found, earlier=self.retries.earlier(found.key))
            gave_way = self.draining and record.failure == "preempted"
            if record.failure and record.status == "failed" and (gave_way or self.retries.again(stage, record.failure)):
                again.append((record, self.retries.demand(stage)))
            else:
                over.append(record)
        self._writer.attempted([record for record, _ in again])
        for record, demand in again:
            self.schedule.resume(record.key)
            self._observer.retried(record, demand)
        return over

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

    def lost(self, task: Task, death: Death) -> None:
        """A worker died: the stage that it had begun failed, and what it had not begun goes back untouched."""
        unfinished = self._unfinished(task)
        if not unfinished:
            return
        begun, *others = unfinished
        self.schedule.give_back(others)
        if others:
            self._observer.handed_back(others)
        self.commit([self._lost_record(task, begun, death)])

    def hand_back(self, task: Task) -> None:
        """A worker was lost through no doing of its task, all of which goes back untouched."""
        if unfinished := self._unfinished(task):
            self.schedule.give_back(unfinished)
            self._observer.handed_back(unfinished)

    def _unfinished(self, task: Task) -> list[str]:
        # A stage that paused may be with another worker by now.
        own = [stage.key for stage in task.stages if self._held_by.get(stage.key) == id(task)]
        return [key for key in own if key in self.schedule.running]

    def warn(self, message: str) -> None:
        """Tell the person who watches."""
        self._observer.warned(message)

    def drain(self, *, urgent: bool = False) -> None:
        """Hand out no further work, and begin no further stage of what was handed out.

        Where it is `urgent` the stages that run leave a checkpoint at the end of their epoch, and stop there.
        """
        fresh = not self.draining or (urgent and not self._urgent)
        self.draining, self._urgent = True, self._urgent or urgent
        if not fresh:
            return
        for file in (self._drain, urgent_file(self._drain))[: 1 + urgent]:
            # Where the file cannot be written, the workers still are handed nothing more.
            with suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        self._observer.draining(urgent)

    def close(self) -> None:
        """Close the ledger and write the tables as they stand."""
        for file in (self._drain, urgent_file(self._drain)):
            # One that stays disturbs nobody: it bears the name of this run.
            with suppress(OSError):
                file.unlink(missing_ok=True)
        self._writer.close()
        self._tables.write(self.plan, self.records)

    def _lost_record(self, task: Task, key: str, death: Death) -> StageRecord:
        stage, now, demand = self.schedule.stage(key), round(time.time(), 3), task.demands[key]
        attempt = self.retries.attempt(key)
        return StageRecord(
            key=key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status="failed", failure=death.failure,
            error=f"attempt {attempt}: the worker was lost while it held this stage: {redacted(death.reason)}",
            busy_s=0.0, started_at=now, finished_at=now, config=stage.own_config(), device=stage.device,
            run=self._writer.run, attempt=attempt, memory_limit=demand.memory, timeout_s=demand.timeout_s,
        )  # fmt: skip


def run_missing(driver: Driver, runner: Runner) -> None:
    """Run what is missing; where the runner itself breaks, rebuild it from what is still missing.

    Raises:
        InterruptedRunError: it broke again and again without a stage that got any further.

    """
    fruitless, broken = 0, "it ended with stages left"
    while not driver.finished_or_drained and fruitless < REBUILDS:
        before = driver.progress
        try:
            runner.run(driver)
        except RunnerBrokenError as error:
            broken = str(error)
            driver.warn(f"the runner broke and is started again ({broken})")
        fruitless = 1 if driver.progress > before else fruitless + 1
    if not driver.finished_or_drained:
        raise InterruptedRunError(
            f"the runner broke {fruitless} times in a row, last with: {broken}. What is finished is kept; the same "
            "command goes on from there, and --runner serial needs no Ray."
        )


class RunnerBrokenError(Exception):
    """The machinery that runs tasks failed, not a task."""
