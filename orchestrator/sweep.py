"""The story of `orchestrator sweep`: plan, lock, find what is missing, run it, time it, leave the tables."""

import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from orchestrator.data_root import bring, local_root
from orchestrator.durable import publish
from orchestrator.errors import RunError, StoreError
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, StageRecord, new_run, replay
from orchestrator.locks import Holder, study_lock, wait_until_free
from orchestrator.observations import here, outputs_needed
from orchestrator.observations import missing as missing_observations
from orchestrator.plan import Plan, Planner
from orchestrator.planning import Site, grow_from_store, growth_of
from orchestrator.quiet import QuietObserver, QuietPass, check_possible
from orchestrator.retention.removal import Removed, wait_for_removal
from orchestrator.rungs import with_stops
from orchestrator.runner.base import Driver, Missing, Observer, Runner, missing, run_missing
from orchestrator.runner.draining import draining_on_signals
from orchestrator.runner.task import Workplace
from orchestrator.shards import Shard, check_alone, check_parted, lock_name, runner_of
from orchestrator.spec.cells import data_configs
from orchestrator.spec.demands import absent_gpu
from orchestrator.spec.model import StudySpec
from orchestrator.spool import bring_left
from orchestrator.storage.places import AnyPath, opened
from orchestrator.storage.remote import RemotePath
from orchestrator.table_writer import JointTables, Tables, TableWriter
from orchestrator.timing import Child, timing_command
from trainables.config import DataConfig
from trainables.data import files
from trainables.errors import DataError

if TYPE_CHECKING:
    from orchestrator.growth import Growth

RunnerName = Literal["tune", "serial"]
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a user decides beside the study: where things lie and what executes."""

    layout: Layout
    data_root: AnyPath
    download: bool = False
    runner: RunnerName = "tune"
    address: str | None = None
    cores: int = 1
    code_folder: Path | None = None
    latency: bool = True
    optuna_journal: Path | None = None
    shard: Shard | None = None
    stand_in: str | None = None
    stop_after_same: int | None = None
    retry_failed: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """How a sweep ended; `ran` and `cached` count stages, `measured` latencies; `wall_s` in seconds.

    `plan` is that of the `shard`, where there is one. `stopped_by` says why it ended early of itself. `evicted` are the
    outputs that the study does not keep. `warm` is that of `growth.Growth`.
    """

    plan: Plan
    records: Mapping[str, StageRecord]
    ran: int
    cached: int
    interrupted: bool
    wall_s: float
    measured: int = 0
    shard: Shard | None = None
    stopped_by: str | None = None
    evicted: Removed = field(default_factory=Removed)
    warm: tuple[int, int] = (0, 0)


class SweepObserver(Observer, QuietObserver, Protocol):
    """What a screen is told of a whole sweep."""

    def waiting(self, holder: Holder) -> None:
        """Another process runs the same plan; this one follows it."""

    def started(self, plan: Plan, todo: Missing) -> None:
        """So much is to run."""

    def warm(self, configs: int) -> None:
        """The search was told so many configs that other studies had finished."""


def sweep(planner: Planner, options: Options, observer: SweepObserver) -> Summary:
    """Run what is missing of a study and leave its tables; finished work is never redone.

    Raises:
        RunError: the run cannot start, or another plan of this study is running.
        StoreError: the results folder cannot be read or written.

    """
    started = time.monotonic()
    plan = planner.plan
    if options.shard is not None:
        check_parted(plan.spec)
    check_alone(options.layout, plan.spec.study, options.shard)
    lock = options.layout.lock(lock_name(plan.spec.study, options.shard))
    while True:
        with study_lock(lock, plan.digest) as other:
            if other is None:
                # Whoever removes things looks for locks first: from here on it sees this sweep's.
                wait_for_removal(options.layout)
                return _run(planner, options, observer, started)
            _refuse_other_plan(plan, other)
        observer.waiting(other)
        wait_until_free(lock, plan.digest)


def _run(planner: Planner, options: Options, observer: SweepObserver, started: float) -> Summary:
    layout = options.layout
    if brought := bring_left(layout.ledger):
        observer.warned(f"an earlier run was killed here: what it had finished was brought to the root ({brought})")
    replayed = replay(layout.ledger)
    for warning in replayed.warnings:
        observer.warned(warning)
    run = new_run(layout.ledger)
    writer = LedgerWriter(layout.ledger, run)
    records = with_stops(replayed.records, replayed.events.get(planner.spec.search_name, ()))
    growth = growth_of(planner, replayed, writer.note)
    if growth:
        grow_from_store(growth, records, layout)
        if told := growth.warm[0]:
            observer.warm(told)
    whole = planner.plan
    plan = options.shard.part(whole) if options.shard else whole
    tables = JointTables(layout, whole) if options.shard else TableWriter(layout, whole.spec.study)
    if options.shard and not plan.trials:
        return Summary(plan, {}, 0, 0, interrupted=False, wall_s=time.monotonic() - started, shard=options.shard)
    observations = missing_observations(plan, records, here()) if options.latency else []
    todo = missing(plan, records, layout, outputs_needed(observations), retry_failed=options.retry_failed)
    # Whatever is refused is refused before the study's folder is touched.
    check_possible(observations, options.cores)
    if todo.stages or growth:
        _check_resources(plan.spec, options)
    needed = [*(one.config.data for one in todo.stages), *(one.data for one in observations)]
    needed += data_configs(plan.spec) if growth else []
    prepare_data(needed, options.data_root, download=options.download)
    elsewhere = (
        ["latency is measured on this machine, not on the cluster's"] if options.address and observations else []
    )
    for warning in (*elsewhere, *_remade(todo, plan), *_leaving_rows(layout.study(plan.spec.study), whole)):
        observer.warned(warning)
    _save_study(layout.study(plan.spec.study), plan)
    driver = Driver(
        plan, layout, records, writer, observer, outputs_needed(observations), growth, tables,
        stop_after_same=options.stop_after_same, retry_failed=options.retry_failed,
    )  # fmt: skip
    to_run = bool(todo.stages) or (growth is not None and not growth.exhausted)
    unfinished = to_run and _train(driver, todo, options, run, observer)
    writer.close()  # a search that has nothing to run may have noted something nevertheless
    ran = sum(record.run == run for record in driver.records.values())
    command = timing_command(local_root(options.data_root), options.code_folder)
    quiet = QuietPass(driver.plan, layout, driver.records, run, observer, here(), lambda: Child(command))
    if not (unfinished or driver.draining):
        _measure(quiet, options, tables, written=to_run)
    if growth and options.optuna_journal:
        _export(growth, planner.spec, options.optuna_journal, observer)
    interrupted = unfinished or quiet.draining or (driver.draining and bool(observations))
    evicted = Removed() if interrupted else _evict(planner.plan, options, observer)
    wall_s = time.monotonic() - started
    return Summary(
        driver.plan, quiet.records, ran, len(todo.done), interrupted, wall_s, quiet.taken, options.shard,
        driver.stopped_by, evicted, growth.warm if growth else (0, 0),
    )  # fmt: skip


def _evict(plan: Plan, options: Options, observer: SweepObserver) -> Removed:
    """What the study does not keep after its end goes, where nothing of it is left to run."""
    layout, study = options.layout, plan.spec.study
    if plan.spec.keep == "all" or runner_of(layout, study, but=lock_name(study, options.shard)) is not None:
        return Removed()
    replayed = replay(layout.ledger)  # what other shards have finished meanwhile, too
    if missing(plan, with_stops(replayed.records, replayed.events.get(plan.spec.search_name, ())), layout).stages:
        return Removed()
    from orchestrator.retention.eviction import evict

    removed, why_not = evict(plan, Site(layout, options.data_root, options.code_folder), replayed)
    if why_not:
        observer.warned(why_not)
    return removed


def _export(growth: "Growth", spec: StudySpec, path: Path, observer: SweepObserver) -> None:
    """The journal; where it cannot be written any more, the sweep has its summary all the same."""
    from orchestrator.journal import export_journal
    from orchestrator.sampling import SampledSearch

    if isinstance(growth, SampledSearch):
        try:
            export_journal(growth.sampler, spec, path)
        except RunError as error:
            observer.warned(f"{error}. The same command writes it, all else cached")


def _train(driver: Driver, todo: Missing, options: Options, run: str, observer: SweepObserver) -> bool:
    """Run the stages that are missing; returns whether some are left."""
    with draining_on_signals(driver):
        observer.started(driver.plan, todo)
        try:
            run_missing(driver, _runner(driver.plan, options, run))
        finally:
            driver.close()
    return not driver.finished


def _measure(quiet: QuietPass, options: Options, tables: Tables, *, written: bool) -> None:
    """All training on this machine is done: take the latencies; the tables follow whatever ends that."""
    try:
        if options.latency:
            with draining_on_signals(quiet):
                quiet.run()
    finally:
        if quiet.taken or not written:
            tables.write(quiet.plan, quiet.records)


def _runner(plan: Plan, options: Options, run: str) -> Runner:
    resources, layout = plan.spec.resources, options.layout
    place = Workplace(
        layout.artifacts.root, layout.drain(run), options.data_root, run, layout.notes(run), options.code_folder,
        options.stand_in,
    )  # fmt: skip
    if options.runner == "serial":
        from orchestrator.runner.serial import SerialRunner

        return SerialRunner(place)
    from orchestrator.runner.tune import TuneRunner

    return TuneRunner(place, resources.demands, options.cores, options.address)


def _check_resources(spec: StudySpec, options: Options) -> None:
    if options.address and options.runner == "serial":
        raise RunError("--address joins a Ray cluster and --runner serial uses no Ray; leave one of them out")
    if options.address:
        _knock(options.address)
        return
    cpus, gpus = (max(getattr(demand, name) for demand in spec.resources.demands) for name in ("cpus", "gpus"))
    if cpus > options.cores:
        raise RunError(f"resources.cpus {cpus} is more than the {options.cores} cores of this machine (see --cores)")
    if gpus > 0 and not _cuda_available():
        raise RunError(f"{absent_gpu(spec.tree.get('resources'))}, or --address to join a cluster.")


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


def _leaving_rows(folder: AnyPath, plan: Plan) -> list[str]:
    """A word on rows of a former plan that the table is about to lose; a foreign folder is refused.

    What a plan that grows loses is not known before its end.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return []
    if not (folder / "_study.yaml").exists():
        raise RunError(f"{folder} holds other files, no study. Name another --results, or use --set study=NAME.")
    try:
        with opened(folder / "trials.parquet") as file:
            former = set(pq.read_table(file, columns=["trial_id"])["trial_id"].to_pylist())
    except (OSError, pa.ArrowException):
        return []
    leaving = len(former - {trial.id for trial in plan.trials})
    if not leaving or plan.grows:
        return []
    return [
        f"{leaving} rows of the former plan leave {folder.name}/trials.parquet; what was computed for them stays "
        "cached. To keep both tables, give this study another name: --set study=NAME"
    ]


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


def prepare_data(sets: Iterable[DataConfig], given: AnyPath, *, download: bool) -> None:
    """See to it that every data set that is needed is whole before anything is timed or run.

    Raises:
        RunError: one is not, and may not be downloaded or cannot be.

    """
    sets = list(sets)
    if isinstance(given, RemotePath) and download:
        raise RunError(f"--download fetches data sets into a folder of this machine, and --data-root is {given}")
    data_root = local_root(given)
    try:
        for data in dict.fromkeys(sets):
            bring(given, data)
    except DataError as error:
        raise RunError(str(error)) from error
    _prepare_folders([data for data in sets if data.name == "imagefolder"], data_root)
    for name in sorted({data.name for data in sets} - {"imagefolder"}):
        faults = files.faults(name, data_root)
        if faults and not download:
            raise RunError(files.advice(name, data_root, faults))
        try:
            if faults:
                files.download(name, data_root)
        except DataError as error:
            raise RunError(str(error)) from error


def _prepare_folders(sets: Iterable[DataConfig], data_root: Path) -> None:
    """Decode a user's own images once, rather than in every worker."""
    once = {(data.folder, data.labels, data.test_share, data.image_size, data.channels): data for data in sets}
    for data in once.values():
        from trainables.data.cache import prepare

        try:
            prepare(data, data_root)
        except DataError as error:
            raise RunError(str(error)) from error


def _refuse_other_plan(plan: Plan, holder: Holder) -> None:
    if holder.digest not in ("", plan.digest):
        raise RunError(
            f"study {plan.spec.study} is being run with another plan by process {holder.pid} on {holder.host}. "
            "A running study is frozen: wait for it or stop it, or give this one another name with --set study=NAME."
        )


def _save_study(folder: AnyPath, plan: Plan) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        publish(folder / "_study.yaml", plan.spec.text().encode())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}. Name another --results folder.") from error
