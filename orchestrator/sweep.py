"""The story of `orchestrator sweep`: plan, lock, find what is missing, run it, leave the tables."""

import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.compaction import write_tables
from orchestrator.durable import publish
from orchestrator.errors import RunError, StoreError
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.locks import Holder, holder, study_lock
from orchestrator.plan import Plan
from orchestrator.runner.base import Driver, Missing, Observer, Runner, draining_on_signals, missing, run_missing
from orchestrator.runner.task import Workplace
from trainables.data import files
from trainables.errors import DataError

RunnerName = Literal["tune", "serial"]
FOLLOW_EVERY_S = 1.0
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a user decides beside the study: where things lie and what executes."""

    layout: Layout
    data_root: Path
    download: bool = False
    runner: RunnerName = "tune"
    address: str | None = None
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """How a sweep ended; `wall_s` in seconds."""

    plan: Plan
    records: Mapping[str, StageRecord]
    ran: int
    cached: int
    interrupted: bool
    wall_s: float


class SweepObserver(Observer, Protocol):
    """What a screen is told of a whole sweep."""

    def warned(self, message: str) -> None:
        """Something is odd but does not stop the run."""

    def waiting(self, holder: Holder) -> None:
        """Another process runs the same plan; this one follows it."""

    def started(self, plan: Plan, todo: Missing) -> None:
        """So much is to run."""


def sweep(plan: Plan, options: Options, observer: SweepObserver) -> Summary:
    """Run what is missing of `plan` and leave its tables; finished work is never redone.

    Raises:
        RunError: the run cannot start, or another plan of this study is running.
        StoreError: the results folder cannot be read or written.

    """
    started = time.monotonic()
    lock = options.layout.lock(plan.spec.study)
    while True:
        with study_lock(lock, plan.digest) as other:
            if other is None:
                return _run(plan, options, observer, started)
            _refuse_other_plan(plan, other)
        observer.waiting(other)
        _wait_for(lock, plan.digest)


def _run(plan: Plan, options: Options, observer: SweepObserver, started: float) -> Summary:
    layout = options.layout
    replayed = replay(layout.ledger)
    for warning in replayed.warnings:
        observer.warned(warning)
    todo = missing(plan, replayed.records, layout)
    # Whatever is refused is refused before the study's folder is touched.
    if todo.stages:
        _check_resources(plan.spec.resources.cpus, plan.spec.resources.gpus, options)
        _prepare_data(todo, options)
    for warning in (*_remade(todo, plan), *_leaving_rows(layout.study(plan.spec.study), plan)):
        observer.warned(warning)
    _save_study(layout.study(plan.spec.study), plan)
    if not todo.stages:
        write_tables(layout.study(plan.spec.study), plan, replayed.records)
        return Summary(plan, replayed.records, 0, len(todo.done), interrupted=False, wall_s=time.monotonic() - started)
    run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    driver = Driver(plan, layout, replayed.records, run, observer)
    with draining_on_signals(driver):
        observer.started(plan, todo)
        try:
            run_missing(driver, _runner(plan, options, run))
        finally:
            driver.close()
    ran = sum(record.run == run for record in driver.records.values())
    wall_s = time.monotonic() - started
    return Summary(plan, driver.records, ran, len(todo.done), not driver.finished, wall_s)


def _runner(plan: Plan, options: Options, run: str) -> Runner:
    resources, layout = plan.spec.resources, options.layout
    place = Workplace(layout.artifacts.root, layout.drain(run), options.data_root, resources.cpus, run)
    if options.runner == "serial":
        from orchestrator.runner.serial import SerialRunner

        return SerialRunner(place)
    from orchestrator.runner.environment import quiet_ray

    quiet_ray()
    from orchestrator.runner.tune import TuneRunner

    return TuneRunner(place, resources.cpus, resources.gpus, options.cores, options.address)


def _check_resources(cpus: int, gpus: float, options: Options) -> None:
    if options.address and options.runner == "serial":
        raise RunError("--address joins a Ray cluster and --runner serial uses no Ray; leave one of them out")
    if options.address:
        _knock(options.address)
        return
    if cpus > options.cores:
        raise RunError(f"resources.cpus {cpus} is more than the {options.cores} cores of this machine (see --cores)")
    if gpus > 0 and not _cuda_available():
        raise RunError(
            f"resources.gpus {gpus:g} asks for a GPU and this machine has none that torch can use. "
            "Add --set resources.gpus=0 to run on the CPU, or --address to join a cluster."
        )


def _knock(address: str) -> None:
    """Ray itself would go on trying for minutes where nobody listens."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise RunError(
            f"--address {address}: no Ray cluster answers there ({error}). "
            "Name the head's HOST:PORT as `ray start --head` prints it, or auto for the one on this machine."
        ) from error


def _remade(todo: Missing, plan: Plan) -> list[str]:
    return [
        f"the output of stage {plan.stages[key].kind} {key[:12]} is gone or damaged and needed again: it is run again"
        for key in todo.remade
    ]


def _leaving_rows(folder: Path, plan: Plan) -> list[str]:
    """A word on rows of a former plan that the table is about to lose; a foreign folder is refused."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return []
    if not (folder / "_study.yaml").exists():
        raise RunError(f"{folder} holds other files, no study. Name another --results, or use --set study=NAME.")
    try:
        former = set(pq.read_table(folder / "trials.parquet", columns=["trial_id"])["trial_id"].to_pylist())
    except (OSError, pa.ArrowException):
        return []
    leaving = len(former - {trial.id for trial in plan.trials})
    if not leaving:
        return []
    return [
        f"{leaving} rows of the former plan leave {folder.name}/trials.parquet; what was computed for them stays "
        "cached. To keep both tables, give this study another name: --set study=NAME"
    ]


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


def _prepare_data(todo: Missing, options: Options) -> None:
    """Every data set that is needed is whole before the first worker starts."""
    names = sorted({stage.config.data.name for stage in todo.stages})
    for name in names:
        faults = files.faults(name, options.data_root)
        if faults and not options.download:
            raise RunError(files.advice(name, options.data_root, faults))
        try:
            if faults:
                files.download(name, options.data_root)
        except DataError as error:
            raise RunError(str(error)) from error


def _refuse_other_plan(plan: Plan, holder: Holder) -> None:
    if holder.digest not in ("", plan.digest):
        raise RunError(
            f"study {plan.spec.study} is being run with another plan by process {holder.pid} on {holder.host}. "
            "A running study is frozen: wait for it or stop it, or give this one another name with --set study=NAME."
        )


def _wait_for(lock: Path, digest: str) -> None:
    """Until the lock is free, or its holder turns out to run another plan."""
    while (other := holder(lock)) is not None and other.digest in ("", digest):
        time.sleep(FOLLOW_EVERY_S)


def _save_study(folder: Path, plan: Plan) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        publish(folder / "_study.yaml", plan.spec.text().encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}. Name another --results folder.") from error
