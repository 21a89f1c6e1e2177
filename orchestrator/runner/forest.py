"""One Tune run whose searcher hands out the ready tasks of the forest. The only file that imports ray.tune.

Tune's own memory, loggers and prints are off: the ledger remembers.
"""

import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.errors import StoreError
from orchestrator.ledger import StageRecord
from orchestrator.runner.base import Driver, RunnerBrokenError
from orchestrator.runner.task import Task, Workplace

if TYPE_CHECKING:
    from trainables.stages.datasets import Datasets


def fit(driver: Driver, place: Workplace, resources: Mapping[str, float], workers: int, folder: Path) -> None:
    """Run until nothing is left or the driver drains; Tune's own files go to `folder`.

    Raises:
        RunnerBrokenError: Tune itself failed; what was committed stays.
        StoreError: a record could not be committed.

    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)  # or the workers would be started one after the other
    searcher = ForestSearcher(driver, tasks=workers + 1)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_task, place=place), dict(resources)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=str,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(folder), verbose=0),
    )
    try:
        tuner.fit()
    except _AllDone:
        return
    except Exception as error:
        if searcher.fault is None:
            raise RunnerBrokenError(f"{type(error).__name__}: {error}") from error
    if searcher.fault is not None:
        raise searcher.fault


class _AllDone(BaseException):
    """Leaves Tune's loop: it would wait two more seconds for actors that end with Ray anyway."""


def run_task(config: dict[str, Any], place: Workplace) -> None:
    """Tune's trainable: execute one task and report its records as they come."""

    def report(records: Sequence[StageRecord]) -> None:
        tune.report({"records": list(records)})

    try:
        # The tensor library is loaded in the worker alone: the driver stays small and starts sooner.
        from orchestrator.runner.work import execute

        execute(config["task"], place, _datasets(place.data_root), report)
    except Exception:
        # raised, it would reach the searcher as a trial that failed, without a word of why
        tune.report({"records": [], "fault": traceback.format_exc()})


@cache
def _datasets(root: Path) -> "Datasets":
    """One cache a worker process, kept between tasks."""
    from trainables.stages.datasets import Datasets

    return Datasets(root)


class ForestSearcher(Searcher):
    """Hands out tasks of a driver as Tune trials; nothing is suggested, everything is looked up."""

    def __init__(self, driver: Driver, tasks: int) -> None:
        super().__init__(metric="records", mode="max")
        self._most = tasks
        self.fault: StoreError | None = None
        self._driver = driver
        self._tasks: dict[str, Task] = {}
        self._faults: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for a resume of its own, which is never used.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """A task as a trial's config; None while parents run; FINISHED at the end or while draining.

        One task waits for the next free worker; more would be taken before it is known what is best next.
        """
        if self.fault or self._driver.draining or self._driver.finished:
            return Searcher.FINISHED
        task = self._driver.take() if len(self._tasks) < self._most else None
        if task is None:
            return None
        self._tasks[trial_id] = task
        return {"task": task}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Commit the records of a report."""
        if "fault" in result:
            self._faults[trial_id] = str(result["fault"])
        self._commit(result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Commit what came with the end, and give back what a dead worker left."""
        task = self._tasks.pop(trial_id, None)
        if result:
            self._commit(result)
        if task is not None and self.fault is None:
            why = "its process was killed or crashed" if error else "it ended without a record"
            self._driver.lost(task, self._faults.pop(trial_id, why))
        if self.fault is None and self._driver.finished:
            raise _AllDone

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def _commit(self, result: dict[str, Any]) -> None:
        # Tune logs what a searcher raises and goes on; a ledger that cannot be written must end the run.
        if self.fault is not None:
            return
        try:
            self._driver.commit(result.get("records", ()))
        except StoreError as error:
            self.fault = error
