"""A whole study against the same trials on a plain Ray Tune grid, in one run: wall time, sharing, efficiency, memory.

    uv run python benchmarks/sweep_speed.py [STUDY]            (about 8 minutes for pfr_grid.yaml on 2 cores)
    uv run python benchmarks/sweep_speed.py STUDY --skip-plain

Both sides pay for starting Ray. The plain grids run the whole path of every trial, cells and baselines alike, once with
actor reuse and, as Tune does by default, once without.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from orchestrator.layout import Layout
from orchestrator.ledger import replay
from orchestrator.plan import Plan, plan
from orchestrator.precision import Precisions
from orchestrator.spec.load import load_spec

CORES = len(psutil.Process().cpu_affinity())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="pfr_grid.yaml")
    parser.add_argument("--skip-plain", action="store_true", help="only our side")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        command = [sys.executable, "-m", "orchestrator.cli", "sweep", options.study, "--results", folder]
        command += ["--data-root", str(options.data_root)]
        wall_s, peak_bytes = watched(command)
        precisions = Precisions(Layout(results).probes, "cpu", print)
        planned = plan(load_spec(options.study), precisions)
        report(planned, results, wall_s, peak_bytes)
        again_s, _ = watched(command)
        print(f"the same again, all cached    {again_s:8.1f} s")
        if not options.skip_plain:
            compare(planned, results, wall_s, options.data_root)


def watched(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a command, and the largest sum of proportional memory over it and its descendants."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.5)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, peak


def memory(pid: int) -> int:
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def report(planned: Plan, results: Path, wall_s: float, peak_bytes: int) -> None:
    stages = pd.read_parquet(results / planned.spec.study / "_stages.parquet")
    training = stages[stages["stage"].isin(["train", "compress"])]
    span_s = (training["finished_at"].max() - stages["started_at"].min()).total_seconds()
    inside = stages[stages["finished_at"] <= training["finished_at"].max()]
    busy_s = inside["busy_s"].sum()
    baselines = len(planned.trials) - planned.cells
    print(f"{planned.spec.study}: {planned.cells} cells + {baselines} baselines, {CORES} cores")
    print(f"wall time, Ray's start within {wall_s:8.1f} s")
    print(f"busy time of all stages       {stages['busy_s'].sum():8.1f} s")
    print(f"efficiency                    {busy_s / (CORES * span_s):8.3f}   busy / (cores x {span_s:.1f} s)")
    print(f"peak memory of all processes  {peak_bytes / 2**30:8.2f} GiB")


def compare(planned: Plan, results: Path, wall_s: float, data_root: Path) -> None:
    records = replay(Layout(results).ledger).records
    once = sum(records[key].busy_s for key in planned.stages)
    each = sum(count * records[key].busy_s for key, count in planned.unshared().items())
    factor = each / once
    print(f"sharing factor of the plan    {factor:8.2f}")
    for reuse in (True, False):
        plain_s = plain_grid(planned, reuse, data_root)
        share = f", {plain_s / wall_s / factor:.0%} of the sharing factor" if reuse else ""
        print(f"plain Tune grid, reuse {reuse!s:6} {plain_s:8.1f} s  {plain_s / wall_s:.2f}x ours{share}")


def plain_grid(planned: Plan, reuse: bool, data_root: Path) -> float:
    """Seconds that Tune takes for every trial's whole path, Ray's start within, as ours."""
    from orchestrator.runner.environment import quiet_ray

    quiet_ray()
    import ray
    from ray import tune

    paths = [[planned.stages[key] for key in trial.path] for trial in planned.trials]

    loaded: dict[str, Any] = {}

    def whole_path(config: dict[str, int]) -> dict[str, float]:
        import torch

        from trainables.stages import run_stage
        from trainables.stages.datasets import Datasets

        torch.set_num_threads(1)
        artifact: bytes | None = None
        datasets = loaded.setdefault("sets", Datasets(data_root))  # a worker that is used again loads nothing twice
        for stage in paths[config["trial"]]:
            artifact = run_stage(stage, datasets.of(stage.config.data, stage.seed), artifact).artifact
        return {"bytes": len(artifact or b"")}

    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import ray, ray.tune"], check=True)  # what a fresh driver pays for imports
    ray.init(address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            whole_path,
            param_space={"trial": tune.grid_search(list(range(len(paths))))},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    ray.shutdown()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
