"""How long `orchestrator report` takes for a study of 100,000 trials, how large its page is and how soon it opens.

The tables are made up by their schemas: 20,000 settings of five axes with five seeds each, 200,100 stages, a million
epochs, every measured column filled with numbers that differ. The front has three objectives. Processor seconds are
those of this process, and of the main thread of the page; on a busy machine they say more than those that passed.

    uv run python benchmarks/report_speed.py [--trials N] [--keep FOLDER]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis import tables
from orchestrator.report.data import payload
from orchestrator.report.render import page
from orchestrator.report.source import read

SEEDS = 5
EPOCHS = 10
AXES: dict[str, list[Any]] = {
    "compress.pfr": [round(0.03 * i, 2) for i in range(20)],
    "compress.threshold": [round(0.3 + 0.1 * i, 1) for i in range(10)],
    "compress.score": ["zero_share", "mean_abs", "binarization_error", "own_score_a", "own_score_b"],
    "model.width": [8, 16, 32, 64],
    "train.epochs": [10, 20, 30, 40, 60],
}


def write_study(folder: Path, trials: int) -> None:
    """trials.parquet, _stages.parquet and _history.parquet of a study that never ran."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    values = list(product(*AXES.values(), range(SEEDS)))[:trials]
    n = len(values)
    axes = dict(zip((*AXES, "seed"), map(list, zip(*values, strict=True)), strict=True))
    dense = [f"{hash_of('train', width, epochs, seed)}" for *_, width, epochs, seed in values]
    keys = {"train": dense, "compress": unique("compress", n), "evaluate": unique("evaluate", n)}
    pq.write_table(trial_table(axes, keys, n, rng), folder / "trials.parquet", compression="zstd")
    pq.write_table(stage_table(keys, n, rng), folder / "_stages.parquet", compression="zstd")
    pq.write_table(history_table(keys["compress"], rng), folder / "_history.parquet", compression="zstd")


def hash_of(*words: object) -> str:
    return f"{abs(hash(words)) % 16**16:016x}" * 2


def unique(kind: str, n: int) -> list[str]:
    return [hash_of(kind, i) for i in range(n)]


def trial_table(axes: dict[str, list[Any]], keys: dict[str, list[str]], n: int, rng: np.random.Generator) -> pa.Table:
    extra = {name: pa.infer_type(axes[name][:1]) for name in AXES}
    schema = tables.schema(extra)
    pfr, width = np.array(axes["compress.pfr"]), np.array(axes["model.width"])
    accuracy = 0.95 - 0.2 * pfr**2 - 0.4 / width + rng.normal(0, 0.004, n)
    known: dict[str, Any] = {
        **axes,
        "study": ["made_up"] * n,
        "trial_id": [f"{i:012x}" for i in range(n)],
        "role": ["cell"] * n,
        "status": ["complete" if i % 1000 else "failed" for i in range(n)],
        "error": [None if i % 1000 else f"stage compress: the loss is not finite ({i % 7})" for i in range(n)],
        **{f"stage_keys.{kind}": column for kind, column in keys.items()},
        "accuracy": accuracy,
        "compression": 16 / (1 - pfr) ** 1.5 * rng.uniform(0.98, 1.02, n),
        "wall_time_s": width * np.array(axes["train.epochs"]) * rng.uniform(0.5, 1, n),
        "mixed_hosts": [False] * n,
        "threads": np.ones(n, dtype=np.int64),
        "machine": ["one"] * n,
        "device": ["cpu"] * n,
        "hosts": ["here"] * n,
    }
    columns = {field.name: known.get(field.name, filler(field.type, n, rng)) for field in schema}
    return pa.table(columns, schema=schema)


def filler(dtype: pa.DataType, n: int, rng: np.random.Generator) -> Any:
    if pa.types.is_floating(dtype):
        return rng.uniform(0, 1000, n)
    if pa.types.is_integer(dtype):
        return rng.integers(0, 10**6, n)
    if pa.types.is_timestamp(dtype):
        return pa.array(1_700_000_000_000_000 + rng.integers(0, 10**12, n), pa.int64()).cast(dtype)
    return [None] * n


def stage_table(keys: dict[str, list[str]], n: int, rng: np.random.Generator) -> pa.Table:
    roots = sorted(set(keys["train"]))
    all_keys = [*roots, *keys["compress"], *keys["evaluate"]]
    kinds = ["train"] * len(roots) + ["compress"] * n + ["evaluate"] * n
    known: dict[str, Any] = {
        "key": all_keys,
        "stage": kinds,
        "parent": [None] * len(roots) + keys["train"] + keys["compress"],
        "status": ["complete"] * len(all_keys),
        "run": ["one"] * len(all_keys),
        "host": ["here"] * len(all_keys),
        "attempt": np.ones(len(all_keys), dtype=np.int64),
    }
    schema = tables.stages_schema()
    return pa.table(
        {field.name: known.get(field.name, filler(field.type, len(all_keys), rng)) for field in schema}, schema=schema
    )


def history_table(keys: list[str], rng: np.random.Generator) -> pa.Table:
    n = len(keys) * EPOCHS
    known: dict[str, Any] = {
        "key": np.repeat(keys, EPOCHS),
        "stage": ["compress"] * n,
        "epoch": np.tile(np.arange(1, EPOCHS + 1), len(keys)),
        "round": pa.nulls(n, pa.int64()),
    }
    schema = tables.history_schema()
    return pa.table({field.name: known.get(field.name, filler(field.type, n, rng)) for field in schema}, schema=schema)


def opened(path: Path) -> str:
    """How long headless Chromium takes from the file to a page that answers."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        return "not measured: no chromium and chromedriver here"
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = browser
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"):
        options.add_argument(word)
    with webdriver.Chrome(options=options, service=Service(driver)) as chrome:
        chrome.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        before = time.perf_counter()
        chrome.get(path.as_uri())
        wall = time.perf_counter() - before
        ready = chrome.execute_script("return document.documentElement.dataset.ready")
        metrics = chrome.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        busy = {one["name"]: one["value"] for one in metrics}
        return f"{wall:.2f} s (processor {busy['TaskDuration']:.2f} s), ready: {ready}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="folder to leave the study and the page in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        folder = root / "made_up"
        if not folder.exists():
            write_study(folder, options.trials)
        wall, busy = time.perf_counter(), time.process_time()
        source = read(str(folder))
        loaded = time.process_time() - busy
        found = payload(source, {"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}})
        text = page(found)
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        out = root / "report.html"
        out.write_text(text)
        points = found["points"]
        print(f"{options.trials:,} trials, {sum(points['front']):,} of {points['of']:,} settings on the front")
        print(f"report: {wall:.2f} s, processor {busy:.2f} s ({loaded:.2f} s of it reading)")
        print(f"page: {out.stat().st_size / 1e6:.2f} MB, {found['rows']['n']:,} rows in its table")
        command = [sys.executable, "-m", "orchestrator.cli", "report", str(folder), "--out", str(out)]
        command += ["--max", "accuracy", "--max", "compression", "--min", "wall_time_s:5%"]
        before = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"the command, start to end: {time.perf_counter() - before:.2f} s")
        print(f"Chromium opens it in {opened(out)}")


if __name__ == "__main__":
    main()
