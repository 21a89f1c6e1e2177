"""A study's tables made up by their schemas: small, with known numbers, and with names that would like to be code."""

import base64
import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis import tables
from orchestrator.report.data import payload
from orchestrator.report.source import read

PFRS, WIDTHS, SEEDS = (0.0, 0.2, 0.4), (8, 16), (0, 1)
TRAIN_S, COMPRESS_S, MEASURE_S = 8.0, 2.0, 0.5
BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SPITE = "<script>window.spite = 1</script><img src=x onerror='window.spite = 2'>"
FORMULA = "=cmd|' /C calc'!A0"

TOLD_OF_BOUND = "The study asks for val_accuracy >= 0.2; the front is taken among the settings that keep it."

STUDY = """\
# What does {spite} cost?
study: made_up
base:
  data: {{name: digits}}
  model: {{name: resnet8, width: 8}}
  compress: {{method: stq}}
axes:
  compress.pfr: [0, 0.2, 0.4]
  model.width: [8, 16]
seeds: 2
objectives: {{accuracy: max, compression: max, wall_time_s: {{min: 5%}}}}
"""


def accuracy(pfr: float, width: int, seed: int) -> float:
    return 0.8 + 0.005 * width - 0.1 * pfr + (0.01 if seed else -0.01)


def cell(pfr: float, width: int, seed: int) -> dict[str, Any]:
    name = f"{round(10 * pfr)}{width:02d}{seed}"
    return {
        "study": "made_up", "trial_id": f"c{name}", "role": "cell", "seed": seed, "status": "complete",
        "compress.pfr": pfr, "model.width": width, "data.name": "digits",
        "stage_keys.train": f"train-{width}-{seed}", "stage_keys.compress": f"compress-{name}",
        "stage_keys.evaluate": f"evaluate-{name}",
        "accuracy": accuracy(pfr, width, seed), "val_accuracy": accuracy(pfr, width, seed) + 0.01,
        "compression": 16 / (1 - pfr) ** 2, "packed_bytes": 1000 * width, "train_s": TRAIN_S,
        "compress_s": COMPRESS_S, "measure_s": MEASURE_S, "wall_time_s": TRAIN_S + COMPRESS_S, "threads": 1,
        "device": "cpu", "hosts": "here", "machine": "some machine", "mixed_hosts": False, "finished_at": BEGUN,
        "versions.torch": "9.9.9",
    }  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Twelve cells, of which one failed, and a baseline."""
    found = [cell(pfr, width, seed) for pfr in PFRS for width in WIDTHS for seed in SEEDS]
    bad = found[-1]
    for name in ("accuracy", "val_accuracy", "compression", "packed_bytes", "compress_s", "measure_s"):
        bad[name] = None
    bad |= {"status": "failed", "failure": "diverged", "error": f"{SPITE} {FORMULA}"}
    dense = cell(0.0, 8, 0) | {
        "trial_id": "b0", "role": "baseline", "baseline": "dense", "compress.pfr": None, "compression": 1.0,
        "stage_keys.compress": None, "stage_keys.evaluate": "evaluate-dense", "compress_s": None,
        "wall_time_s": TRAIN_S,
    }  # fmt: skip
    return [*found, dense]


def stages(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages of these trials, each once; the compression of a failed trial failed."""
    busy = {"train": TRAIN_S, "compress": COMPRESS_S, "evaluate": MEASURE_S}
    found: dict[str, dict[str, Any]] = {}
    for row in trials:
        parent = None
        for kind in busy:
            key = row[f"stage_keys.{kind}"]
            if key is None:
                continue
            status = row["status"] if kind == "compress" else "complete"
            begun = BEGUN + timedelta(seconds=len(found))
            found[key] = {
                "key": key, "stage": kind, "parent": parent, "seed": row["seed"], "status": status,
                "busy_s": busy[kind], "started_at": begun, "finished_at": begun + timedelta(seconds=busy[kind]),
                "host": "here", "pid": 7, "threads": 1, "device": "cpu", "run": "run-1", "attempt": 1,
            }  # fmt: skip
            if status == "failed":
                break
            parent = key
    return list(found.values())


def epochs(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"key": stage["key"], "stage": stage["stage"], "epoch": epoch, "loss": 1 / epoch, "lr": 0.1,
         "val_accuracy": 1 - 0.5 / epoch, "images_per_s": 100.0}
        for stage in of if stage["stage"] != "evaluate" for epoch in (1, 2, 3)
    ]  # fmt: skip


def write(folder: Path, trials: list[dict[str, Any]], *, beside: bool = True) -> Path:
    """The tables of these trials; without those beside them if asked so."""
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {name: pa.float64() if name == "compress.pfr" else pa.infer_type([row[name] for row in trials])
              for name in ("compress.pfr", "model.width", "data.name")}  # fmt: skip
    _write(folder / "trials.parquet", trials, tables.schema(leaves))
    if beside:
        found = stages(trials)
        _write(folder / "_stages.parquet", found, tables.stages_schema())
        _write(folder / "_history.parquet", epochs(found), tables.history_schema())
        (folder / "_study.yaml").write_text(STUDY.format(spite=SPITE))
    return folder


def bounded(folder: Path) -> Path:
    """The same study, now a search with the bound of `TOLD_OF_BOUND`."""
    with (folder / "_study.yaml").open("a") as file:
        file.write("search: {name: tpe, trials: 4, where: 'val_accuracy >= 0.2'}\n")
    return folder


def _write(path: Path, found: list[dict[str, Any]], schema: pa.Schema) -> None:
    columns = {name: [row.get(name) for row in found] for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), path)


def told(path: Path | str, **asked: object) -> dict[str, Any]:
    return payload(read(str(path)), asked)


def decoded(column: dict[str, Any]) -> list[Any]:
    """An encoded column as the page reads it."""
    if "values" in column:
        return column["values"]
    return [None if place < 0 else column["set"][place] for place in column["at"]]


def data_of(text: str) -> dict[str, Any]:
    """The payload of a page, as a browser reads it: up to the first `</script` after its beginning."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL)
    assert block
    found = json.loads(block[1])
    return found | {"rows": json.loads(gzip.decompress(base64.b64decode(found["rows"])))}
