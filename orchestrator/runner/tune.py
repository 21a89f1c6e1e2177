"""Ray Tune as the executor: Ray for the time of a run, local or joined."""

import contextlib
import importlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import ray
from ray._private import ray_constants

from orchestrator.errors import RunError
from orchestrator.runner.base import Driver, draining_on_signals
from orchestrator.runner.task import Workplace

OBJECT_STORE_BYTES = 100 * 2**20  # tasks and records are small; artifacts go through the store


class TuneRunner:
    """Runs tasks on Ray: a local one, started and stopped here, or a cluster at `address`."""

    def __init__(self, place: Workplace, cpus: int, gpus: float, cores: int, address: str | None = None) -> None:
        self._place = place
        self._resources = {"cpu": float(cpus), "gpu": gpus}
        self._cores = cores
        self._address = address

    def run(self, driver: Driver) -> None:
        """Run until nothing is left or the driver drains; see `forest.fit`.

        Raises:
            RunError: no cluster answers at the address.

        """
        # Importing Tune takes as long as waiting for Ray's processes: both at once.
        importing = threading.Thread(target=importlib.import_module, args=("orchestrator.runner.forest",))
        importing.start()
        with _ray(self._address, self._cores) as folder:
            importing.join()
            from orchestrator.runner.forest import fit

            workers = self._workers()
            driver.begin(workers)
            # ray.init puts a SIGTERM handler of its own in place; the driver's must stand during the run.
            with draining_on_signals(driver):
                if not driver.draining:
                    fit(driver, self._place, self._resources, workers, folder)

    def _workers(self) -> int:
        """How many tasks fit beside each other in the Ray that runs."""
        have = ray.cluster_resources()
        fits = (have.get(name.upper(), 0.0) / share for name, share in self._resources.items() if share)
        return max(1, int(min(fits)))


@contextlib.contextmanager
def _ray(address: str | None, cores: int) -> Generator[Path]:
    """Ray for the time of a run; Tune's own files go to a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-tune-"))
    try:
        if address:
            _join(address)
        else:
            _start(cores)
        yield folder
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(cores: int) -> None:
    try:
        with _loopback_alone():
            ray.init(
                address="local",
                num_cpus=cores,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises no narrower one where its processes are too slow to start
        raise RunError(
            f"Ray did not start: {error} Nothing was run. A machine that is busy with other work may need a second "
            "try; --runner serial needs no Ray."
        ) from error


@contextlib.contextmanager
def _loopback_alone() -> Generator[None]:
    """Ray's servers, which run what anybody sends them, listen to this machine alone.

    Ray gives a node the address by which others reach it, and listens everywhere, unless it is told that no others
    can be; to ask for 127.0.0.1 has no effect.
    """
    told = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = told


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise RunError(f"--address {address}: no Ray cluster answers there: {error}") from error
