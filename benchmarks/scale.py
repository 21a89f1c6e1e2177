"""What the orchestration costs at 100 to 100,000 cells: sweeps whose stages do nothing, through the real Ray Tune.

    uv run python -m benchmarks.scale             (about half an hour)
    uv run python -m benchmarks.scale --quick     (two minutes: 100 and 1,000 cells)

A cell has four stages of its own: a training, its compression, and an evaluation of each; nothing is shared. The path
is that of a sweep (plan, searcher, Tune, worker process, report, ledger, schedule, tables), but that workers call
`benchmarks/no_op.py` in place of the stages and load no data. Such a stage has no output, so there is no file of one:
real stages leave one file each, a network. Each size runs in a process of its own, on a results root of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from orchestrator.compaction import write_tables
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, StageRecord, replay
from orchestrator.plan import Plan, Planner
from orchestrator.runner.base import Missing, missing
from orchestrator.screen import SweepScreen, console
from orchestrator.spec.load import load_spec
from orchestrator.sweep import Options, Summary, sweep

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
SIZES, QUICK = (100, 1_000, 10_000, 100_000), (100, 1_000)
TUNE_TRIALS = (50, 250)
COMMITS, BATCH = 200, 250

STUDY = """\
study: scale
base:
  data: {{name: digits}}
  model: {{name: resnet8}}
  train: {{precision: fp32}}
  compress: {{method: finetune}}
axes:
  train.lr: {{range: [0.001, {most}, 0.001]}}
  train.weight_decay: {{range: [0.0001, 0.001, 0.0001]}}
seeds: 10
"""

PLAIN_TUNE = """
import os, time
from orchestrator.runner.environment import quiet_ray
quiet_ray()
import ray
from ray import tune
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
def trial(config):
    return {{"accuracy": config["x"]}}
def seconds(trials):
    started = time.perf_counter()
    tune.Tuner(trial, param_space={{"x": tune.grid_search(list(range(trials)))}},
               tune_config=tune.TuneConfig(reuse_actors=True),
               run_config=tune.RunConfig(storage_path={folder!r}, verbose=0)).fit()
    return time.perf_counter() - started
few, many = {trials}
first = seconds(few)
print((seconds(many) - first) / (many - few))
ray.shutdown()
"""


@dataclass(frozen=True)
class Found:
    """What was measured of one size. Seconds are wall seconds but for the CPU of the driver.

    `work_s` is from the first finished stage to the last, tables that were written meanwhile included; Ray's start is
    not.
    """

    cells: int
    stages: int
    plan_s: float
    work_s: float
    worked: int
    sweep_s: float
    driver_cpu_s: float
    driver_mb: float
    replay_s: float
    missing_s: float
    tables_s: float
    commit_ms: float
    commit_batch_ms: float
    files: int
    ledger_mb: float


class Clock(SweepScreen):
    """Says nothing, and remembers when the first and the last stages were on disk."""

    def __init__(self) -> None:
        super().__init__(console())
        self.first = self.last = 0.0
        self.at_first = 0

    def started(self, plan: Plan, todo: Missing) -> None: ...

    def finished(self, records: Sequence[StageRecord], left_out: Sequence[str], remaining_s: float) -> None:
        self.last = time.monotonic()
        if not self.first:
            self.first, self.at_first = self.last, len(records)

    def _say(self, text: str) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 cells")
    parser.add_argument("--cells", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cells:
        sys.stdout.write(json.dumps(asdict(measured(asked.cells))) + "\n")
        return
    found = [in_a_process(cells) for cells in (QUICK if asked.quick else SIZES)]
    show(found, plain_tune_s())


def measured(cells: int) -> Found:
    """Sweep so many cells, and look at what is left."""
    with tempfile.TemporaryDirectory() as folder:
        path, layout = Path(folder, "scale.yaml"), Layout(Path(folder, "results"))
        path.write_text(STUDY.format(most=cells / 100_000))
        planner, plan_s = timed(lambda: Planner(load_spec(str(path)), lambda _: "fp32"))
        plan, clock, before = planner.plan, Clock(), cpu_s()
        options = Options(
            layout, Path(folder), cores=2, latency=False, code_folder=ROOT, stand_in="benchmarks.no_op:no_op"
        )
        summary, sweep_s = timed(lambda: sweep(planner, options, clock))
        check(summary, plan)
        driver_cpu_s, driver_mb = cpu_s() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        replayed, replay_s = timed(lambda: replay(layout.ledger))
        _, missing_s = timed(lambda: missing(plan, replayed.records, layout))
        _, tables_s = timed(lambda: write_tables(layout.study("scale"), plan, replayed.records))
        records = list(replayed.records.values())
        left = [file for file in Path(folder, "results").rglob("*") if file.is_file()]
        return Found(
            plan.cells, len(plan.stages), plan_s, clock.last - clock.first, len(plan.stages) - clock.at_first, sweep_s,
            driver_cpu_s, driver_mb, replay_s, missing_s, tables_s, commit_ms(layout, records[:1]),
            commit_ms(layout, records[:BATCH]), len(left),
            sum(file.stat().st_size for file in layout.ledger.glob("*.jsonl")) / 1e6,
        )  # fmt: skip


def check(summary: Summary, plan: Plan) -> None:
    """All of it ran, and in no other way than was meant."""
    complete = sum(record.status == "complete" for record in summary.records.values())
    if not complete == summary.ran == len(plan.stages):
        raise SystemExit(f"{complete} stages complete, {summary.ran} ran, of {len(plan.stages)}")


def commit_ms(layout: Layout, records: Sequence[StageRecord]) -> float:
    """Median milliseconds of one commit of these records: one write and one fsync, on disk when it returns."""
    writer = LedgerWriter(layout.root / "commits", "run")
    seconds = [timed(lambda: writer.commit(records))[1] for _ in range(COMMITS)]
    writer.close()
    return 1e3 * statistics.median(seconds)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def in_a_process(cells: int) -> Found:
    command = [sys.executable, "-m", "benchmarks.scale", "--cells", str(cells)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    values = json.loads(done.stdout.splitlines()[-1])
    return Found(**{field.name: values[field.name] for field in fields(Found)})


def plain_tune_s() -> float:
    """Seconds that another trial of a plain Tune grid costs, whose workers are used again."""
    with tempfile.TemporaryDirectory() as folder:
        code = PLAIN_TUNE.format(folder=folder, trials=TUNE_TRIALS)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def marginal_ms(one: Found, found: Sequence[Found]) -> str:
    """What a cell costs more between two sizes: neither Ray's start nor that of the workers is in it."""
    before = max((other for other in found if other.cells < one.cells), key=lambda other: other.cells, default=None)
    if before is None:
        return "-"
    return f"{1e3 * (one.work_s - before.work_s) / (one.cells - before.cells):.2f}"


def show(found: Sequence[Found], tune_s: float) -> None:
    """The table, as it stands in docs/scale.md."""
    rows: list[tuple[str, Callable[[Found], str]]] = [
        ("stages", lambda one: f"{one.stages:,}"),
        ("ms per cell of four stages, all in all", lambda one: f"{1e3 * 4 * one.work_s / one.worked:.2f}"),
        ("ms for each further cell, from the size before", lambda one: marginal_ms(one, found)),
        ("CPU ms per cell in the driver, start included", lambda one: f"{1e3 * one.driver_cpu_s / one.cells:.2f}"),
        ("whole sweep, Ray's start included, s", lambda one: f"{one.sweep_s:.1f}"),
        ("plan, s", lambda one: f"{one.plan_s:.2f}"),
        ("replay of the ledger, s", lambda one: f"{one.replay_s:.2f}"),
        ("what is missing, s", lambda one: f"{one.missing_s:.2f}"),
        ("tables, s", lambda one: f"{one.tables_s:.2f}"),
        ("commit of one record, median ms", lambda one: f"{one.commit_ms:.2f}"),
        (f"commit of {BATCH} records, median ms", lambda one: f"{one.commit_batch_ms:.2f}"),
        ("peak memory of the driver, MB", lambda one: f"{one.driver_mb:,.0f}"),
        ("files below the results root", lambda one: str(one.files)),
        ("ledger, MB", lambda one: f"{one.ledger_mb:,.1f}"),
    ]
    print("| cells | " + " | ".join(f"{one.cells:,}" for one in found) + " |")
    print("| --- |" + " --- |" * len(found))
    for name, text in rows:
        print(f"| {name} | " + " | ".join(map(text, found)) + " |")
    print(f"\nAnother trial of a plain Tune grid whose workers are used again: {1e3 * tune_s:.1f} ms")


if __name__ == "__main__":
    main()
