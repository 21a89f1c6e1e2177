"""Other tools read back what was handed to them."""

import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.cli import main
from orchestrator.loggers.base import Run
from orchestrator.loggers.registry import LOGGERS, open_logger
from orchestrator.loggers.runs import log_runs, runs_of
from orchestrator.report.source import Source, read

NOW = pd.Timestamp("2026-01-02 03:04:05", tz="UTC")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished cell, a failed one, and one that has not ended."""
    folder = tmp_path / "results" / "s"
    folder.mkdir(parents=True)
    common = {
        "study": "s",
        "role": "cell",
        "baseline": None,
        "failure": None,
        "stage_keys.train": "t",
        "data.name": "digits",
    }
    rows = [
        {"trial_id": "aaa", "seed": 0, "status": "complete", "error": None, "finished_at": NOW, "compress.pfr": 0.4,
         "accuracy": 0.9, "accuracy_drop": None, "packed_bytes": 1000, "stage_keys.compress": "c"},
        {"trial_id": "bbb", "seed": 1, "status": "failed", "error": "loss is NaN", "finished_at": NOW,
         "compress.pfr": 0.6, "stage_keys.compress": "d"},
        {"trial_id": "ccc", "seed": 2, "status": None, "compress.pfr": 0.4, "stage_keys.compress": "e"},
    ]  # fmt: skip
    pd.DataFrame([common | row for row in rows]).to_parquet(folder / "trials.parquet")
    epochs = [("t", "train", 1, 2.0, 0.5), ("t", "train", 2, 1.0, 0.75), ("c", "compress", 1, 1.5, None)]
    pd.DataFrame(epochs, columns=["key", "stage", "epoch", "loss", "val_accuracy"]).to_parquet(
        folder / "_history.parquet"
    )
    return folder


def change(study: Path, **values: Any) -> None:
    """A column of the first trial gets its value later, as a baseline or a latency does."""
    df = pd.read_parquet(study / "trials.parquet")
    for name, value in values.items():
        df.loc[df["trial_id"] == "aaa", name] = value
    df.to_parquet(study / "trials.parquet")


STEPS = {
    ("train/loss", 1): 2.0, ("train/loss", 2): 1.0, ("train/val_accuracy", 1): 0.5, ("train/val_accuracy", 2): 0.75,
    ("compress/loss", 1): 1.5,
}  # fmt: skip


def test_a_run_is_what_varies_what_has_a_direction_and_each_epoch(study: Path) -> None:
    one, other = runs_of(read(str(study)))
    assert one.params == {"seed": 0, "compress.pfr": 0.4}
    assert one.metrics == {"accuracy": 0.9, "packed_bytes": 1000}
    assert {(name, step.epoch): value for step in one.steps for name, value in step.numbers.items()} == STEPS
    assert one.name == "seed=0 pfr=0.4"
    assert (other.status, other.metrics, other.tags["error"]) == ("failed", {}, "loss is NaN")
    assert one.ended_s == NOW.timestamp()


def test_a_digest_names_the_content(study: Path) -> None:
    before = [run.digest for run in runs_of(read(str(study)))]
    assert before == [run.digest for run in runs_of(read(str(study)))]
    change(study, accuracy=0.91)
    after = [run.digest for run in runs_of(read(str(study)))]
    assert after[0] != before[0]
    assert after[1] == before[1]


class Recorder:
    """A logger that keeps runs in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.writes = 0

    def written(self) -> Mapping[str, str]:
        return {trial: run.digest for trial, run in self.runs.items()}

    def write(self, run: Run) -> None:
        self.runs[run.trial_id] = run
        self.writes += 1

    def close(self) -> None:
        pass


def test_nothing_is_written_twice_and_what_changed_is_written_anew(study: Path) -> None:
    logger = Recorder()
    assert str(log_runs(read(str(study)), logger)) == (
        "2 runs written, 1 trials have not ended yet, the same command takes them later"
    )
    assert str(log_runs(read(str(study)), logger)).startswith("0 runs written, 2 there already")
    change(study, accuracy_drop=0.01)
    assert "1 that had changed written anew, 1 there already" in str(log_runs(read(str(study)), logger))
    assert logger.writes == 3
    assert logger.runs["aaa"].metrics["accuracy_drop"] == 0.01


# Each tool's own reader


def tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, data, their checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[12 + length + 4 :]


def test_tensorboard(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    out = tmp_path / "tb"
    for _ in range(2):
        assert main(["log", str(study), "--to", "tensorboard", "--out", str(out)]) == 0
    assert "0 runs written, 2 there already" in capsys.readouterr().out
    change(study, accuracy_drop=0.01)
    assert main(["log", str(study), "--to", "tensorboard", "--out", str(out)]) == 0
    (path,) = (out / "s" / "aaa").glob("events.out.tfevents.*")
    events = [Event.FromString(record) for record in tfrecords(path)]
    scalars = {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value
               if value.WhichOneof("value") == "simple_value"}  # fmt: skip
    wanted = STEPS | {("accuracy", 0): 0.9, ("packed_bytes", 0): 1000, ("accuracy_drop", 0): 0.01}
    assert scalars == pytest.approx(wanted)
    assert any(value.metadata.plugin_data.plugin_name == "hparams" for event in events for value in event.summary.value)
    assert {folder.name for folder in (out / "s").iterdir()} == {"aaa", "bbb"}


def test_mlflow(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ml"
    for _ in range(2):
        assert main(["log", str(study), "--to", "mlflow", "--out", str(out)]) == 0
    assert "0 runs written, 2 there already" in capsys.readouterr().out
    change(study, accuracy_drop=0.01)
    logger: Any = open_logger("mlflow", "s", out)
    client = logger._client
    assert log_runs(read(str(study)), logger).renewed == 1
    experiment = client.get_experiment_by_name("s").experiment_id
    runs = {run.data.tags["orchestrator.trial_id"]: run for run in client.search_runs([experiment])}
    assert len(client.search_runs([experiment])) == 2
    assert runs["aaa"].data.params == {"seed": "0", "compress.pfr": "0.4"}
    final = {"accuracy": 0.9, "packed_bytes": 1000, "accuracy_drop": 0.01}
    assert {name: runs["aaa"].data.metrics[name] for name in final} == final
    told = {
        (name, point.step): point.value
        for name in {name for name, _ in STEPS}
        for point in client.get_metric_history(runs["aaa"].info.run_id, name)
    }
    assert told == STEPS
    assert (runs["aaa"].info.status, runs["bbb"].info.status) == ("FINISHED", "FAILED")
    assert runs["bbb"].data.tags["error"] == "loss is NaN"
    client.set_terminated(runs["bbb"].info.run_id, "RUNNING")  # as a run is that was cut off
    assert set(logger.written()) == {"aaa"}
    client._tracking_client.store.engine.dispose()


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline file, which is a log of LevelDB: blocks of 32 KiB with pieces of records."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_wandb(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there: the network is not asked
    out = tmp_path / "wb"
    for _ in range(2):
        assert main(["log", str(study), "--to", "wandb", "--out", str(out)]) == 0
    assert "0 runs written, 2 there already" in capsys.readouterr().out
    (path,) = (out / "s" / "wandb").glob("offline-run-*-aaa/run-aaa.wandb")
    found: dict[str, list[Any]] = {}
    for record in wandb_records(path):
        found.setdefault(record.WhichOneof("record_type"), []).append(record)
    (run,) = (record.run for record in found["run"])
    assert (run.run_id, run.project, run.display_name) == ("aaa", "s", "seed=0 pfr=0.4")
    config = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
    assert config["compress.pfr"] == 0.4
    told: dict[tuple[str, int], float] = {}
    for record in found["history"]:
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        told |= {(name, row["epoch"]): value for name, value in row.items() if "/" in name}
    assert told == STEPS
    last = {item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for record in found["summary"] for item in record.summary.update}  # fmt: skip
    assert (last["accuracy"], last["packed_bytes"]) == (0.9, 1000)


# Mistakes


@pytest.mark.parametrize("name", LOGGERS)
def test_a_tool_that_is_not_installed_is_one_line_of_advice(
    name: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = LOGGERS[name]
    for module in [one for one in sys.modules if one.partition(".")[0] == entry.needs]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(entry.needs), *sys.meta_path])
    assert main(["log", str(study), "--to", name, "--out", str(tmp_path / "x")]) == 2
    told = capsys.readouterr().err
    assert told == f"{entry.needs} is not installed; the logger {name} needs it: pip install {entry.install}\n"


class Absent:
    """An import hook under which a module is not installed."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_place_that_cannot_be_written_is_told(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["log", str(study), "--to", "tensorboard", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "cannot be written: Not a directory; name another folder" in capsys.readouterr().err
    out = tmp_path / "ml"
    out.mkdir()
    (out / "mlflow.db").write_text("no database " * 100)
    assert main(["log", str(study), "--to", "mlflow", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert f"{out / 'mlflow.db'}: MLflow cannot use it" in told
    assert "Traceback" not in told


def test_a_run_that_fails_half_way_leaves_nothing(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorboardX

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboardX.SummaryWriter, "add_scalar", broken)
    logger = open_logger("tensorboard", "s", tmp_path / "tb")
    source: Source = read(str(study))
    with pytest.raises(Exception, match="No space left on device"):
        log_runs(source, logger)
    assert logger.written() == {}
    assert list((tmp_path / "tb" / "s").iterdir()) == []
