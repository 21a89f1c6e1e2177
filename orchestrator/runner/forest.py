"""One Tune run whose searcher hands out the ready tasks of the forest. The only file that imports ray.tune.

Tune's own memory, loggers and prints are off: the ledger remembers.
"""

import json
import logging
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.ledger import StageRecord
from orchestrator.runner.limits import Limits, asked_back_by_signals
from orchestrator.runner.messages import LOW_MEMORY, Alive, Broken, Ended, Over, Reported, Take
from orchestrator.runner.ray_host import bundle
from orchestrator.runner.task import Task, Workplace
from orchestrator.storage.places import AnyPath

if TYPE_CHECKING:
    from trainables.stages.datasets import Datasets

ALIVE_EVERY_S = 2.0
LOOK_EVERY_S = 5.0
"""Ray itself takes about ten seconds to notice that a raylet is dead."""


def fit(wire: Connection, place: Workplace, workers: int, folder: Path) -> None:
    """Run until the driver has nothing left; Tune's own files go to `folder`."""
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)  # or the workers would be started one after the other
    errors: dict[str, str] = {}
    searcher = ForestSearcher(wire, place, errors, tasks=workers + 1)
    tuner = tune.Tuner(
        StageWorker,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_Listener(errors),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=str,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(folder),
            verbose=0,
            callbacks=[_Pulse(wire)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # stages have checkpoints of their own
        ),
    )
    try:
        tuner.fit()
    except _AllDone:
        return


class _AllDone(BaseException):
    """Leaves Tune's loop: it would wait two more seconds for actors that end with Ray anyway."""


class _Pulse(tune.Callback):
    """Tells the driver now and then that Tune's loop still turns, and when that is in vain.

    Where this machine's raylet has died Ray ends the job, and Tune waits for workers that nobody will start.
    """

    def __init__(self, wire: Connection) -> None:
        self._wire = wire
        self._told_at = self._looked_at = time.monotonic()
        self._node = ray.get_runtime_context().get_node_id()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's loop has turned once more."""
        del iteration, trials, info
        now = time.monotonic()
        if now - self._told_at >= ALIVE_EVERY_S:
            self._told_at = now
            self._wire.send(Alive())
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
                self._wire.send(Broken("Ray has lost this machine: its raylet is dead"))
                raise _AllDone


class _Listener(FIFOScheduler):
    """Hears what Ray says of a worker that died, by trial; a searcher is only told that it did."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__()
        self._errors = errors

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Comes before the searcher is told."""
        del tune_controller
        with suppress(OSError, TypeError):
            self._errors[trial.trial_id] = Path(trial.error_file).read_text(errors="replace")


class Parcel:
    """A task on its way through Tune, which copies a trial's config five times over and forgets no trial.

    Copies are the parcel itself, which is emptied when its task has ended.
    """

    def __init__(self, task: Task) -> None:
        self.demand = task.demand
        self.task: Task | None = task

    def __deepcopy__(self, memo: dict[int, Any]) -> "Parcel":
        return self


class StageWorker(tune.Trainable):
    """Tune's trainable: executes one task after the other, in the main thread, where signals and limits reach it."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What the worker of a task must have; a worker is used again for tasks that ask for the same."""
        return tune.PlacementGroupFactory([bundle(config["parcel"].demand)])

    def setup(self, config: dict[str, Any]) -> None:
        """Begin with a first task."""
        self._place: Workplace = config["place"]
        self._limits = Limits(guarded=True)
        self._begin(config["parcel"].task)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin with another task; a process that is asked back takes none, and goes."""
        task: Task = new_config["parcel"].task
        if self._limits.preempted:
            said = {"failure": "preempted", "reason": "its machine was asked back", "at": time.time()}
            self._place.notes.mkdir(parents=True, exist_ok=True)
            self._place.note(task.name).write_text(json.dumps(said))
            os._exit(1)
        self._begin(task)
        return True

    def step(self) -> dict[str, Any]:
        """The next records of the task."""
        try:
            with asked_back_by_signals(self._limits):
                records = next(self._records, None)
        except Exception:
            # raised, it would reach the searcher as a trial that failed, without a word of why
            return {"records": [], "fault": traceback.format_exc(), "done": True}
        return {"records": list(records or ()), "done": records is None}

    def _begin(self, task: Task) -> None:
        self.config: dict[str, Any] = {}  # it would go back with every report
        if task.demand.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray shows all GPUs to those who asked for none
        self._records = self._carried_out(task)

    def _carried_out(self, task: Task) -> Iterator[Sequence[StageRecord]]:
        # The tensor library is loaded in the worker alone: the host stays small and starts sooner.
        from orchestrator.runner.work import carried_out

        yield from carried_out(task, self._place, _datasets(self._place.data_root), self._limits)


@cache
def _datasets(root: AnyPath) -> "Datasets":
    """One cache a worker process, kept between tasks."""
    from orchestrator.runner.datasets import NodeDatasets

    return NodeDatasets(root)


class ForestSearcher(Searcher):
    """Hands out the driver's tasks as Tune trials; nothing is suggested, everything is looked up."""

    def __init__(self, wire: Connection, place: Workplace, errors: dict[str, str], tasks: int) -> None:
        super().__init__(metric="records", mode="max")
        self._errors = errors
        self._place = place
        self._most = tasks
        self._wire = wire
        self._tasks: dict[str, tuple[str, Parcel]] = {}
        self._faults: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for a resume of its own, which is never used.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """A task as a trial's config; None while parents run; FINISHED at the end or while draining.

        One task waits for the next free worker; more would be taken before it is known what is best next.
        """
        if len(self._tasks) >= self._most:
            return None
        self._wire.send(Take())
        answer = self._wire.recv()
        if isinstance(answer, Over):
            return Searcher.FINISHED
        if not isinstance(answer, Task):
            return None
        parcel = Parcel(answer)
        self._tasks[trial_id] = answer.name, parcel
        return {"parcel": parcel, "place": self._place}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand on the records of a report."""
        if "fault" in result:
            self._faults[trial_id] = str(result["fault"])
        if records := result.get("records"):
            self._wire.send(Reported(records))
            records.clear()  # Tune keeps the last report of every trial

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand on what came with the end, and say what a dead worker left."""
        found = self._tasks.pop(trial_id, None)
        if result:
            self.on_trial_result(trial_id, result)
        if found is None:
            return
        task, parcel = found
        parcel.task = None
        fault = self._faults.pop(trial_id, "its process was killed or crashed" if error else None)
        self._wire.send(Ended(task, fault, low_memory=LOW_MEMORY in self._errors.pop(trial_id, "")))
        if isinstance(self._wire.recv(), Over):
            raise _AllDone

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
