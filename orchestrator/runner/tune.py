"""Ray Tune as the executor: one Tune run whose searcher hands out the ready tasks of the forest.

The only file that imports ray. Tune's own memory, loggers and prints are off: the ledger remembers.
"""

import contextlib
import logging
import shutil
import socket
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.errors import RunError, StoreError
from orchestrator.ledger import StageRecord
from orchestrator.runner.base import Driver, RunnerBrokenError, draining_on_signals
from orchestrator.runner.task import Task, Workplace

if TYPE_CHECKING:
    from trainables.stages.datasets import Datasets

CONNECT_S = 10.0
OBJECT_STORE_BYTES = 100 * 2**20  # tasks and records are small; artifacts go through the store


class TuneRunner:
    """Runs tasks on Ray: a local one, started and stopped here, or a cluster at `address`."""

    def __init__(self, place: Workplace, cpus: int, gpus: float, cores: int, address: str | None = None) -> None:
        self._place = place
        self._resources = {"cpu": cpus, "gpu": gpus}
        self._cores = cores
        self._address = address

    def run(self, driver: Driver) -> None:
        """Run until nothing is left or the driver drains.

        Raises:
            RunnerBrokenError: Tune itself failed; what was committed stays.
            StoreError: a record could not be committed.

        """
        with _ray(self._address, self._cores) as folder:
            driver.begin(self._workers())
            if driver.draining:
                return
            searcher = ForestSearcher(driver)
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(run_task, place=self._place), self._resources),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    num_samples=-1,
                    reuse_actors=True,
                    max_concurrent_trials=None,
                    trial_name_creator=str,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(name="sweep", storage_path=str(folder), verbose=0),
            )
            try:
                # ray.init puts a SIGTERM handler of its own in place; the driver's must stand during the run.
                with draining_on_signals(driver):
                    tuner.fit()
            except Exception as error:
                if searcher.fault is None:
                    raise RunnerBrokenError(f"{type(error).__name__}: {error}") from error
            if searcher.fault is not None:
                raise searcher.fault

    def _workers(self) -> int:
        """How many tasks fit beside each other in the Ray that runs."""
        have = ray.cluster_resources()
        fits = (have.get(name.upper(), 0.0) / share for name, share in self._resources.items() if share)
        return max(1, int(min(fits)))


def run_task(config: dict[str, Any], place: Workplace) -> None:
    """Tune's trainable: execute one task and report its records as they come."""
    # The tensor library is loaded in the worker alone: the driver stays small and starts sooner.
    from orchestrator.runner.work import execute

    def report(records: Sequence[StageRecord]) -> None:
        tune.report({"records": [asdict(record) for record in records]})

    execute(config["task"], place, _datasets(place.data_root), report)


@cache
def _datasets(root: Path) -> "Datasets":
    """One cache a worker process, kept between tasks."""
    from trainables.stages.datasets import Datasets

    return Datasets(root)


class ForestSearcher(Searcher):
    """Hands out tasks of a driver as Tune trials; nothing is suggested, everything is looked up."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(metric="records", mode="max")
        self.fault: StoreError | None = None
        self._driver = driver
        self._tasks: dict[str, Task] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher for a resume of its own, which is never used.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """A task as a trial's config; None while parents run; FINISHED at the end or while draining."""
        if self.fault or self._driver.draining or self._driver.finished:
            return Searcher.FINISHED
        task = self._driver.take()
        if task is None:
            return None
        self._tasks[trial_id] = task
        return {"task": task}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Commit the records of a report."""
        self._commit(result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Commit what came with the end, and give back what a dead worker left."""
        task = self._tasks.pop(trial_id, None)
        if result:
            self._commit(result)
        if task is not None and self.fault is None:
            self._driver.lost(task, "its process was killed or crashed" if error else "it ended without a record")

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def _commit(self, result: dict[str, Any]) -> None:
        # Tune logs what a searcher raises and goes on; a ledger that cannot be written must end the run.
        if self.fault is not None:
            return
        try:
            self._driver.commit([StageRecord(**record) for record in result.get("records", ())])
        except StoreError as error:
            self.fault = error


@contextlib.contextmanager
def _ray(address: str | None, cores: int) -> Generator[Path]:
    """Ray for the time of a run; Tune's own files go to a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-tune-"))
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        if address:
            _join(address)
        else:
            ray.init(
                address="local",
                num_cpus=cores,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        yield folder
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _join(address: str) -> None:
    try:
        if address != "auto":
            _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise RunError(
            f"--address {address}: no Ray cluster answers there ({error}). "
            "Name the head's HOST:PORT as `ray start --head` prints it, or auto for the one on this machine."
        ) from error


def _knock(address: str) -> None:
    """Ray itself would go on trying for minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
