"""What a worker does with a task: run its stages, publish their outputs, report their records."""

import hashlib
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version

import msgspec
import torch

from orchestrator.artifacts import ArtifactStore
from orchestrator.checkpoints import CheckpointStore, Keeper, checkpoints_beside
from orchestrator.errors import StoreError
from orchestrator.estimate import images_seen, workload
from orchestrator.failures import Failure
from orchestrator.ledger import StageRecord, StageStatus
from orchestrator.runner.gpus import hold_to_share, measured_gpu
from orchestrator.runner.limits import Held, Limits, StageStopped
from orchestrator.runner.task import Task, Workplace
from orchestrator.spec.resources import Demand
from orchestrator.storage.secrets import redacted
from trainables.data.load import Dataset
from trainables.errors import CheckpointError, DataError, DivergedError, InfeasibleError, TrialError
from trainables.keys import Stage
from trainables.sources import importable
from trainables.stages import Outcome, Paused, run_stage
from trainables.stages.datasets import Datasets
from trainables.training.state import machine, reset_state

REPORT_EVERY_S = 0.25
"""Records of shorter stages travel together: a report costs more than they do."""

Report = Callable[[Sequence[StageRecord]], None]


def execute(
    task: Task, place: Workplace, datasets: Datasets, report: Report, limits: Limits, *, reraise: bool = False
) -> None:
    """Run the stages of `task` in order and report a record for each that could be started; see `carried_out`."""
    for records in carried_out(task, place, datasets, limits, reraise=reraise):
        if records:
            report(records)


def carried_out(
    task: Task, place: Workplace, datasets: Datasets, limits: Limits, *, reraise: bool = False
) -> Iterator[Sequence[StageRecord]]:
    """The records of the stages of `task`, in order and a few at a time.

    A stage whose parent failed inside the task is left out: the driver knows what follows from that. With `reraise`
    a bug is raised where it happened instead of becoming a record.
    """
    reset_state(task.demand.cpus)
    if task.demand.packed:
        hold_to_share(task.demand.gpus)
    store = ArtifactStore(place.artifacts)
    outputs: dict[str, tuple[bytes, str]] = {}
    waiting: list[StageRecord] = []
    reported_at = time.monotonic()
    try:
        for stage in task.stages:
            if stage.parent and stage.parent not in outputs and stage.parent not in task.parent_sha256:
                continue
            if limits.preempted or place.drain.exists():
                break
            with importable(place.code_folder):
                waiting.append(_Attempt(stage, task, place, reraise, limits).run(store, datasets, outputs))
            if time.monotonic() - reported_at >= REPORT_EVERY_S:
                yield waiting
                waiting, reported_at = [], time.monotonic()
    except (Exception, KeyboardInterrupt):
        yield waiting
        raise
    yield waiting


@dataclass(frozen=True, slots=True)
class _Attempt:
    stage: Stage
    task: Task
    place: Workplace
    reraise: bool
    limits: Limits

    def run(self, store: ArtifactStore, datasets: Datasets, outputs: dict[str, tuple[bytes, str]]) -> StageRecord:
        """The record of the attempt, with what it was given and what it held."""
        demand = self.task.demands[self.stage.key]
        held, started_at = Held(), time.time()
        with measured_gpu(self.stage.device) as gpu:
            try:
                with self._holding(demand) as held:
                    record = self._run(store, datasets, outputs)
            except StageStopped as error:  # a limit struck just before the stage began, or as its record was made
                outputs.pop(self.stage.key, None)
                record = self._failed(error, started_at, time.time() - started_at, None)
        return msgspec.structs.replace(
            record,
            memory_limit=demand.memory,
            timeout_s=demand.timeout_s,
            peak_memory_bytes=held.peak,
            grown_memory_bytes=held.grown,
            peak_gpu_bytes=gpu.peak,
            gpu_bytes=gpu.total,
        )

    def _holding(self, demand: Demand) -> AbstractContextManager[Held]:
        return self.limits.holding(demand, self.place.note(self.task.name))

    def _run(self, store: ArtifactStore, datasets: Datasets, outputs: dict[str, tuple[bytes, str]]) -> StageRecord:
        stage, started_at, clock = self.stage, time.time(), time.perf_counter()
        parent_sha256: str | None = None
        keeper = Keeper(checkpoints_beside(store), stage.key, self.task.rungs.get(stage.key, ()), self._asked_back)
        try:
            parent, parent_sha256 = self._parent(store, outputs)
            data = None if self.place.stand_in else datasets.of(stage.config.data, stage.seed)
            clock = time.perf_counter()
            if data is None:
                outcome = _stand_in(self.place.stand_in or "")(stage)
            else:
                outcome = _run(stage, data, parent, checkpoints_beside(store), keeper)
            if isinstance(outcome, Paused):
                return self._paused(outcome, parent_sha256, started_at, keeper)
            busy_s = outcome.before_s + time.perf_counter() - clock
            sha256 = store.write(stage.key, outcome.artifact)
            outputs[stage.key] = outcome.artifact, sha256
        except (Exception, StageStopped) as error:
            if self.reraise and _is_bug(error):
                raise
            return self._failed(error, started_at, time.perf_counter() - clock, parent_sha256)
        return self._complete(outcome, sha256, parent_sha256, started_at, busy_s)

    def _asked_back(self) -> bool:
        return self.limits.preempted or self.place.drain_now.exists()

    def _parent(
        self, store: ArtifactStore, outputs: Mapping[str, tuple[bytes, str]]
    ) -> tuple[bytes | None, str | None]:
        key = self.stage.parent
        if key is None:
            return None, None
        if key in outputs:
            return outputs[key]
        data = store.read(key, self.task.parent_sha256[key])
        if data is None:
            raise LostParentError(f"the output of parent stage {key} is gone or damaged; the next run makes it again")
        return data, hashlib.sha256(data).hexdigest()

    def _complete(
        self, outcome: Outcome, sha256: str, parent_sha256: str | None, started_at: float, busy_s: float
    ) -> StageRecord:
        return self._record(
            "complete",
            started_at,
            busy_s,
            metrics=dict(outcome.metrics),
            history=tuple(outcome.history),
            artifact_sha256=sha256,
            artifact_bytes=len(outcome.artifact),
            parent_sha256=parent_sha256,
        )

    def _paused(self, outcome: Paused, parent_sha256: str | None, started_at: float, keeper: Keeper) -> StageRecord:
        if keeper.gave_way:
            kept = f"{outcome.epoch} of {outcome.epochs} epochs are kept"
            back = StageStopped("preempted", f"the machine was asked back; {kept}")
            return self._failed(back, started_at, outcome.spent_s, parent_sha256)
        epoch = {**outcome.record, "epoch": float(outcome.epoch)}
        return self._record("paused", started_at, outcome.spent_s, history=(epoch,), parent_sha256=parent_sha256)

    def _failed(self, error: BaseException, started_at: float, busy_s: float, parent_sha256: str | None) -> StageRecord:
        status: StageStatus = "infeasible" if isinstance(error, InfeasibleError) else "failed"
        failure = _failure(error)
        text = "".join(traceback.format_exception(error)) if _is_bug(error) else str(error)
        return self._record(
            status,
            started_at,
            busy_s,
            failure=None if status == "infeasible" else failure,
            error=redacted(text.strip()),
            parent_sha256=parent_sha256,
        )

    def _record(self, status: StageStatus, started_at: float, busy_s: float, **found: object) -> StageRecord:
        stage = self.stage
        return StageRecord(
            key=stage.key,
            kind=stage.kind,
            parent=stage.parent,
            seed=stage.seed,
            status=status,
            busy_s=round(busy_s, 6),
            started_at=round(started_at, 3),
            finished_at=round(time.time(), 3),
            config=stage.own_config(),
            workload=workload(stage),
            images=images_seen(stage),
            host=socket.gethostname(),
            machine=machine(),
            pid=os.getpid(),
            threads=torch.get_num_threads(),
            device=stage.device,
            versions=versions(),
            run=self.place.run,
            attempt=self.task.attempts[stage.key],
            **found,  # pyright: ignore[reportArgumentType]
        )


def _run(
    stage: Stage, data: Dataset, parent: bytes | None, checkpoints: CheckpointStore, keeper: Keeper
) -> Outcome | Paused:
    """The stage from where an earlier attempt or run got to, or from its beginning; to a stop, or to its end."""
    kept = checkpoints.read(stage.key)
    if kept is not None:
        with suppress(CheckpointError):
            return run_stage(stage, data, parent, resume=kept, after_epoch=keeper)
        checkpoints.drop(stage.key)
    return run_stage(stage, data, parent, after_epoch=keeper)


@cache
def _stand_in(name: str) -> Callable[[Stage], Outcome]:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


class LostParentError(Exception):
    """A parent's output vanished between the start of the run and its use."""


def _is_bug(error: BaseException) -> bool:
    """Whether nobody foresaw the error, so that its traceback is worth keeping."""
    return _failure(error) == "bug" and not isinstance(error, TrialError)


def _failure(error: BaseException) -> Failure:
    if isinstance(error, StageStopped):
        return error.failure
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or NO_MEMORY in str(error):
        return "oom"
    for kind, failure in _FAILURES.items():
        if isinstance(error, kind):
            return failure
    return "bug"


NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says, as a plain RuntimeError, where the CPU has no memory left."""

_FAILURES: Mapping[type[Exception], Failure] = {
    DivergedError: "diverged", DataError: "data", LostParentError: "lost", StoreError: "storage",
}  # fmt: skip


@cache
def versions() -> Mapping[str, str]:
    """What the numbers were made with."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "orchestrator": version("sweep-orchestrator"),
    }
