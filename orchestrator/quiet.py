"""The quiet pass: after all training on this machine is done, latencies are taken one by one in processes of their own.

Whatever a runtime does to its process, a crash or a hang, costs that observation and no more.
"""

import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Protocol

from orchestrator.errors import RunError
from orchestrator.estimate import Estimator, images_seen, workload
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, StageRecord
from orchestrator.observations import Observation, Site, missing
from orchestrator.plan import Plan
from orchestrator.storage.secrets import redacted
from orchestrator.words import brief
from trainables.data.samples import CHECKED_IMAGES
from trainables.measure.request import Answer, Request
from trainables.runtimes.extra import PARTS

CHILD_TAKES = 20
"""Observations of one process: it starts in seconds, and a fresh one carries nothing of the networks before."""

GIVE_UP_AFTER = 3
"""Processes that die one after the other say that no other will live."""

# Rough figures of a process that starts and of an observation, until some have been timed.
START_S, OVERHEAD_S, TURN_S = 8.0, 1.5, 0.005
NETWORKS = 3


class Timer(Protocol):
    """A process that answers requests one by one; see `orchestrator.timing.Child`."""

    def ask(self, request: Request) -> Answer | str:
        """The answer to a request, or in words how the process died over it."""
        ...


class QuietObserver(Protocol):
    """What a screen is told of the pass."""

    def warned(self, message: str) -> None:
        """Something is odd but does not stop the run."""

    def measuring(self, observations: int, machine: str, remaining_s: float) -> None:
        """So many latencies are to be taken, on this machine, in so many seconds."""

    def measured(self, record: StageRecord, remaining_s: float) -> None:
        """One more is on disk."""

    def draining(self, urgent: bool) -> None:
        """What runs is finished; nothing more is begun."""


def check_possible(observations: Sequence[Observation], cores: int) -> None:
    """Refuse what this machine cannot measure, before anything is trained.

    Raises:
        RunError: a package is not installed, or more threads are asked for than there are cores.

    """
    absent = [name for name in PARTS if find_spec(name) is None] if observations else []
    if absent:
        advice = 'pip install "sweep-orchestrator[deploy]", or leave latency out with --no-latency'
        raise RunError(f"latency cannot be measured without {', '.join(absent)}: {advice}")
    threads = max((one.threads for one in observations), default=0)
    if threads > cores:
        raise RunError(f"latency.threads {threads} is more than the {cores} cores of this machine (see --cores)")


class LatencyEstimator:
    """Seconds of an observation: from those taken of the same work, else a guess from its evaluation."""

    def __init__(self, plan: Plan, records: Mapping[str, StageRecord]) -> None:
        self._plan = plan
        self._stages = Estimator(records.values())
        self._taken: defaultdict[str, list[float]] = defaultdict(list)
        for record in records.values():
            self.learn(record)

    def learn(self, record: StageRecord) -> None:
        """Take a finished observation into account."""
        if record.kind == "latency" and record.status == "complete":
            self._taken[record.workload].append(record.busy_s)

    def workload(self, one: Observation) -> str:
        """Names what takes equally long."""
        how = f"{one.runtime} batch {one.batch} threads {one.threads} repeats {one.repeats}"
        return f"latency {how} {workload(self._plan.stages[one.evaluate])}"

    def seconds(self, observations: Sequence[Observation]) -> float:
        """Of all of them, one after the other, with the processes they run in."""
        starts = sum(1 for _ in _batches(observations))
        return sum(map(self._seconds, observations)) + START_S * starts

    def _seconds(self, one: Observation) -> float:
        taken = self._taken.get(self.workload(one))
        if taken:
            return statistics.median(taken)
        stage = self._plan.stages[one.evaluate]
        image_s = self._stages.estimate(stage).seconds / images_seen(stage)
        turns = NETWORKS * one.repeats * max(TURN_S, one.batch * image_s)
        return OVERHEAD_S + turns + CHECKED_IMAGES * image_s


def _batches(observations: Sequence[Observation]) -> Iterator[list[Observation]]:
    """What one process takes: one runtime, so that the idle threads of another disturb nothing."""
    by_runtime: defaultdict[str, list[Observation]] = defaultdict(list)
    for one in observations:
        by_runtime[one.runtime].append(one)
    for same in by_runtime.values():
        for start in range(0, len(same), CHILD_TAKES):
            yield same[start : start + CHILD_TAKES]


class QuietPass:
    """Takes observations and commits each; draining ends the pass after the one that runs."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        records: Mapping[str, StageRecord],
        run: str,
        observer: QuietObserver,
        site: Site,
        timer: Callable[[], AbstractContextManager[Timer]],
    ) -> None:
        self.plan = plan
        self.records = dict(records)
        self.draining = False
        self.taken = 0
        self._layout = layout
        self._run_id = run
        self._writer = LedgerWriter(layout.ledger, run)
        self._observer = observer
        self._site = site
        self._timer = timer
        self._estimator = LatencyEstimator(plan, records)
        self._left: list[Observation] = []
        self._deaths = 0
        self._warned: set[str] = set()
        # Cells first: they are what a person knows of a network that several rows share.
        self._trials = {trial.path[-1]: trial.id for trial in reversed(plan.trials)}

    def drain(self, *, urgent: bool = False) -> None:
        """Begin no further observation; one takes seconds and is finished, however `urgent` it is."""
        del urgent
        if not self.draining:
            self.draining = True
            self._observer.draining(urgent=False)

    def run(self) -> None:
        """Take what is missing; what has no network to be timed is left out.

        Raises:
            StoreError: the ledger cannot be written.

        """
        self._left = [one for one in missing(self.plan, self.records, self._site) if self._is_possible(one)]
        if not self._left:
            return
        self._observer.measuring(len(self._left), self._site.machine, self._estimator.seconds(self._left))
        try:
            for batch in list(_batches(self._left)):
                while batch and not self._stopped:
                    with self._timer() as timer:
                        self._take(batch, timer)
        finally:
            self._writer.close()

    def _take(self, batch: list[Observation], timer: Timer) -> None:
        """Take from `batch` until it is empty, the process dies or the pass ends."""
        while batch and not self._stopped:
            one = batch.pop(0)
            started_at, clock = time.time(), time.perf_counter()
            answer = timer.ask(self._request(one))
            died = isinstance(answer, str)
            if isinstance(answer, str):
                answer = Answer(status="failed", busy_s=time.perf_counter() - clock, error=answer)
            self._commit(one, self._record(one, answer, started_at, died=died))
            self._deaths = self._deaths + 1 if died else 0
            if died:
                break

    @property
    def _stopped(self) -> bool:
        return self.draining or self._deaths >= GIVE_UP_AFTER

    def _is_possible(self, one: Observation) -> bool:
        """Whether both networks lie in the store as they were written."""
        for key in (one.evaluate, one.dense):
            record = self.records.get(key)
            if record is None or record.status != "complete":
                return False
            if self._layout.artifacts.read(key, record.artifact_sha256) is None:
                self._warn_once(key, f"the network of trial {self._trials[key]} is gone or damaged: it is not timed")
                return False
        return True

    def _request(self, one: Observation) -> Request:
        network, dense = (self._file(key) for key in (one.evaluate, one.dense))
        return Request(network=network, dense=dense, data=one.data, seed=one.seed, **one.protocol())

    def _file(self, key: str) -> str:
        """Where the other process finds a network; one that vanished meanwhile it tells of itself."""
        store = self._layout.artifacts
        return str(store.file(key, self.records[key].artifact_sha256 or "") or store.path(key))

    def _commit(self, one: Observation, record: StageRecord) -> None:
        self._writer.commit([record])
        self.records[record.key] = record
        self.taken += 1
        self._left.remove(one)
        self._estimator.learn(record)
        if record.status == "failed":
            what = f"latency of trial {self._trials[one.evaluate]} in {one.runtime}"
            self._warn_once(what, f"{what}: {brief(record.error or '')}")
        self._observer.measured(record, self._estimator.seconds(self._left))
        if self._deaths + 1 >= GIVE_UP_AFTER and record.failure == "lost":
            self._observer.warned(f"{GIVE_UP_AFTER} processes died one after the other: no more latency is measured")

    def _warn_once(self, what: str, message: str) -> None:
        """Once per network and runtime: the other batch sizes fail for the same reason."""
        if what not in self._warned:
            self._warned.add(what)
            self._observer.warned(message)

    def _record(self, one: Observation, answer: Answer, started_at: float, *, died: bool) -> StageRecord:
        key = one.key(self.records, self._site)
        if key is None:
            msg = f"observation of {one.evaluate}: its networks are not there"
            raise ValueError(msg)
        return StageRecord(
            key=key,
            kind="latency",
            parent=one.evaluate,
            seed=one.seed,
            status=answer.status,
            busy_s=round(answer.busy_s, 6),
            started_at=round(started_at, 3),
            finished_at=round(time.time(), 3),
            failure="lost" if died else answer.failure,
            error=redacted(answer.error) if answer.error else None,
            metrics=answer.metrics,
            config=one.protocol(),
            workload=self._estimator.workload(one),
            parent_sha256=self.records[one.evaluate].artifact_sha256,
            host=socket.gethostname(),
            machine=self._site.machine,
            threads=one.threads,
            versions=one.versions(self._site),
            run=self._run_id,
        )
