"""A whole study against the same trials on a plain Ray Tune grid, in one run: wall time, sharing, efficiency, memory.

    uv run python benchmarks/sweep_speed.py [STUDY]                  (about 6 minutes for pfr_grid.yaml on 2 cores)
    uv run python benchmarks/sweep_speed.py STUDY --default-grid     (and Tune as it comes, without actor reuse)

Each side is a process of its own, timed from outside, its memory sampled alike; each pays for its imports and for
starting Ray. The plain grid runs the whole path of every trial, cells and baselines alike.
"""

import argparse
import logging
import os
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
MEMORY_EVERY_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="pfr_grid.yaml")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--default-grid", action="store_true", help="also a plain grid without actor reuse")
    parser.add_argument("--plain", choices=("reuse", "default"), help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain_grid(planned(options.study, options.results), options.plain == "reuse", options.data_root)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def planned(study: str, results: Path) -> Plan:
    return plan(load_spec(study), Precisions(Layout(results).probes, "cpu", print))


def compare(options: argparse.Namespace, results: Path) -> None:
    ours = [sys.executable, "-m", "orchestrator.cli", "sweep", options.study, "--results", str(results)]
    ours += ["--data-root", str(options.data_root)]
    wall_s, peak_bytes = watched(ours)
    whole = planned(options.study, results)
    report(whole, results, wall_s, peak_bytes)
    again_s, _ = watched(ours)
    print(f"the same again, all cached    {again_s:8.1f} s")
    records = replay(Layout(results).ledger).records
    once = sum(records[key].busy_s for key in whole.stages)
    factor = sum(count * records[key].busy_s for key, count in whole.unshared().items()) / once
    print(f"sharing factor of the plan    {factor:8.2f}")
    for kind in ("reuse", "default") if options.default_grid else ("reuse",):
        plain = [sys.executable, __file__, options.study, "--plain", kind, "--results", str(results)]
        plain_s, _ = watched([*plain, "--data-root", str(options.data_root)])
        share = f"{plain_s / wall_s / factor:.0%} of the sharing factor"
        print(f"plain Tune grid, {kind:13}{plain_s:8.1f} s   {plain_s / wall_s:.2f}x ours, {share}")


def watched(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a command, and the largest sum of proportional memory over it and its descendants."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, due = 0, started + MEMORY_EVERY_S
    while process.poll() is None:
        if time.perf_counter() >= due:
            peak = max(peak, memory(process.pid))
            due = time.perf_counter() + MEMORY_EVERY_S
        time.sleep(0.05)
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


def report(whole: Plan, results: Path, wall_s: float, peak_bytes: int) -> None:
    stages = pd.read_parquet(results / whole.spec.study / "_stages.parquet")
    training = stages[stages["stage"].isin(["train", "compress"])]
    span_s = (training["finished_at"].max() - stages["started_at"].min()).total_seconds()
    busy_s = stages[stages["finished_at"] <= training["finished_at"].max()]["busy_s"].sum()
    print(f"{whole.spec.study}: {whole.cells} cells + {len(whole.trials) - whole.cells} baselines, {CORES} cores")
    print(f"wall time, Ray's start within {wall_s:8.1f} s")
    print(f"busy time of all stages       {stages['busy_s'].sum():8.1f} s")
    print(f"efficiency                    {busy_s / (CORES * span_s):8.3f}   busy / (cores x {span_s:.1f} s)")
    print(f"peak memory of all processes  {peak_bytes / 2**30:8.2f} GiB")


def plain_grid(whole: Plan, reuse: bool, data_root: Path) -> None:
    """Every trial's whole path as one Tune trial, Ray as it comes."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # or every worker would build an environment first
    import ray
    from ray import tune

    paths = [[whole.stages[key] for key in trial.path] for trial in whole.trials]
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

    ray.init(address="local", num_cpus=CORES, log_to_driver=False, logging_level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            whole_path,
            param_space={"trial": tune.grid_search(list(range(len(paths))))},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    ray.shutdown()


if __name__ == "__main__":
    main()
