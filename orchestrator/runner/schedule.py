"""Which stages are ready, in which order they are handed out, and how they are packed into tasks. Pure."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from orchestrator.estimate import Estimator
from orchestrator.ledger import StageRecord
from orchestrator.runner.retries import Retries
from orchestrator.runner.task import Task
from trainables.keys import Stage

MOST_STAGES = 1000
"""Stages in a task, a few leaves aside: it travels whole, and is lost whole with its worker."""

TASK_S = 2.0
"""Seconds of estimated work in a task: long against the cost of a hand-out, short against a wait for the last one."""


class Schedule:
    """The state of one run over the stages that are to run, parents before children.

    `done` holds the records of parents that will not run. The longest remaining path goes first. `retries` says what a
    stage is given, and which have failed before.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        done: Mapping[str, StageRecord],
        estimator: Estimator,
        workers: int,
        retries: Retries | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._workers = max(1, workers)
        self._estimator = estimator
        self._stages: dict[str, Stage] = {}
        self._children: defaultdict[str, list[Stage]] = defaultdict(list)
        self._sha256: dict[str, str | None] = {}
        self._seconds: dict[str, float] = {}
        self._remaining: dict[str, float] = {}
        self._open: set[str] = set()
        self._pace = _Pace()
        self._running: set[str] = set()
        self._ready: list[tuple[float, int, str]] = []
        self._ready_seconds = 0.0
        self._order: dict[str, int] = {}
        self.add(stages, done)

    def add(self, stages: Sequence[Stage], done: Mapping[str, StageRecord]) -> None:
        """Take further stages, parents before children; those that are open already stay as they are."""
        fresh = [stage for stage in stages if stage.key not in self._open]
        self._sha256 |= {key: record.artifact_sha256 for key, record in done.items()}
        for stage in fresh:
            self._seconds[stage.key] = self._estimator.estimate(stage).seconds
            self._pace.expect(self._workload(stage), self._seconds[stage.key])
            self._order.setdefault(stage.key, len(self._order))
            self._stages[stage.key] = stage
            self._open.add(stage.key)
            if stage.parent in self._open:
                self._children[stage.parent].append(stage)
        self._remaining |= self._remaining_paths(fresh)
        for stage in fresh:
            if stage.parent not in self._open:
                self._push(stage.key)

    @property
    def finished(self) -> bool:
        """Whether no stage is left to run or running."""
        return not self._open

    @property
    def open(self) -> Set[str]:
        """Keys of the stages that have not finished."""
        return self._open

    @property
    def running(self) -> Set[str]:
        """Keys of the stages that are handed out."""
        return self._running

    @property
    def open_seconds(self) -> float:
        """Estimated busy seconds of all that has not finished, corrected by how long its like has taken so far."""
        return self._pace.open_seconds()

    def take(self) -> Task | None:
        """The next task, or None while all that is left waits for running parents.

        What has failed before goes alone with its leaves: should it kill its worker again, it takes nothing with it.
        The stages of a task are given the same.
        """
        budget = min(TASK_S / self._pace.overall(), self._ready_seconds / (2 * self._workers))
        taken: list[Stage] = []
        seconds = 0.0
        while self._ready and (not taken or self._fits(self._ready[0][2], budget - seconds)):
            if len(taken) >= MOST_STAGES:
                break
            if taken and not self._alike(taken[0], self._stages[self._ready[0][2]]):
                break
            stage = self._pop()
            batch = [stage, *self._short_leaves(stage)]
            if self._retries.earlier(stage.key):
                return self._task(batch)
            taken += batch
            seconds += sum(self._seconds[item.key] for item in batch)
        return self._task(taken) if taken else None

    def resume(self, key: str) -> None:
        """A stage that paused, or is tried again, is ready again; what was to follow it in its task waits for it."""
        self._running.discard(key)
        self._running -= {child.key for child in self._below(key)}
        self._push(key)

    def finish(self, record: StageRecord) -> list[str]:
        """Take a finished stage into account; a failed one closes its descendants, whose keys are returned."""
        if record.key not in self._open:
            return []
        self._close(record.key)
        if record.status != "complete":
            return self._close_descendants(record.key)
        self._pace.learn(self._workload(self._stages[record.key]), self._seconds[record.key], record.busy_s)
        self._sha256[record.key] = record.artifact_sha256
        for child in self._below(record.key):
            if child.key not in self._running:
                self._push(child.key)
        return []

    def give_back(self, keys: Iterable[str]) -> None:
        """Put back stages of a lost task, in its order."""
        for key in [key for key in keys if key in self._running]:
            self._running.discard(key)
            if self._stages[key].parent not in self._open:
                self._push(key)

    def stage(self, key: str) -> Stage:
        """The stage named `key`."""
        return self._stages[key]

    def _below(self, key: str) -> Sequence[Stage]:
        """The children of a stage that were open when it was."""
        return self._children.get(key, ())

    def _workload(self, stage: Stage) -> str:
        return self._estimator.works.of(stage).workload

    def _task(self, stages: Sequence[Stage]) -> Task:
        self._running |= {stage.key for stage in stages}
        inside = {stage.key for stage in stages}
        outside = {stage.parent for stage in stages if stage.parent is not None and stage.parent not in inside}
        return Task(
            tuple(stages),
            {key: self._sha256.get(key) for key in outside},
            {stage.key: self._retries.attempt(stage.key) for stage in stages},
            {stage.key: self._retries.demand(stage) for stage in stages},
        )

    def _short_leaves(self, stage: Stage) -> list[Stage]:
        """Leaf children that cost little beside a task: they run where their parent's output still is in memory."""
        return [
            child
            for child in self._below(stage.key)
            if not self._below(child.key)
            and self._seconds[child.key] <= TASK_S / 2
            and child.key in self._open
            and self._alike(stage, child)
        ]

    def _alike(self, one: Stage, other: Stage) -> bool:
        """Whether one worker has the place for both."""
        return self._retries.demand(one).place == self._retries.demand(other).place

    def _fits(self, key: str, seconds: float) -> bool:
        return not self._retries.earlier(key) and self._seconds[key] <= seconds

    def _push(self, key: str) -> None:
        heapq.heappush(self._ready, (-self._remaining[key], self._order[key], key))
        self._ready_seconds += self._remaining[key]

    def _pop(self) -> Stage:
        key = heapq.heappop(self._ready)[2]
        self._ready_seconds -= self._remaining[key]
        return self._stages[key]

    def _close(self, key: str) -> None:
        self._open.discard(key)
        self._pace.expect(self._workload(self._stages[key]), -self._seconds[key])
        self._running.discard(key)

    def _close_descendants(self, key: str) -> list[str]:
        closed: list[str] = []
        above = [key]
        while above:
            below = [child.key for child in self._below(above.pop()) if child.key in self._open]
            for child in below:
                self._close(child)
            closed += below
            above += below
        return closed

    def _remaining_paths(self, stages: Sequence[Stage]) -> dict[str, float]:
        remaining: dict[str, float] = {}
        for stage in reversed(stages):
            longest = max((remaining.get(child.key, 0.0) for child in self._below(stage.key)), default=0.0)
            remaining[stage.key] = self._seconds[stage.key] + longest
        return remaining


class _Pace:
    """Seconds spent for a second expected, by workload."""

    def __init__(self) -> None:
        self._open: defaultdict[str, float] = defaultdict(float)
        self._expected: defaultdict[str, float] = defaultdict(float)
        self._spent: defaultdict[str, float] = defaultdict(float)

    def expect(self, workload: str, seconds: float) -> None:
        """Add to the seconds that are open."""
        self._open[workload] += seconds

    def learn(self, workload: str, expected: float, spent: float) -> None:
        """Take a finished stage into account."""
        self._expected[workload] += expected
        self._spent[workload] += spent

    def overall(self) -> float:
        """Over all that finished; 1 before."""
        expected, spent = sum(self._expected.values()), sum(self._spent.values())
        return spent / expected if spent and expected else 1.0

    def open_seconds(self) -> float:
        """What is open, each workload at its own pace, or at that of all where none of it has finished."""
        overall = self.overall()
        return sum(
            seconds * (self._spent[kind] / self._expected[kind] if self._expected[kind] else overall)
            for kind, seconds in self._open.items()
        )
