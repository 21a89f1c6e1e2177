"""A stage that is killed goes on where its last checkpoint was, and no table tells."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TINY, Command

from orchestrator import checkpoints
from orchestrator.artifacts import ArtifactStore
from orchestrator.checkpoints import CheckpointStore, Keeper
from orchestrator.cli import main
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.plan import plan
from orchestrator.spec.load import load_spec
from trainables.stages import Progress
from trainables.training.checkpoint import Origin, save
from trainables.training.checkpoint import load as load_checkpoint

Chosen = Callable[[pd.DataFrame], pd.DataFrame]
LONG = (
    TINY.replace("axes:\n  compress.pfr: [0, 0.5]\n  compress.threshold: [0.5, 0.7]\n", "")
    .replace("epochs: 2", "epochs: 8")
    .replace("seeds: 2", "seeds: 1")
)
EAGER = """\
import sys
from orchestrator import checkpoints
from orchestrator.cli import main
checkpoints.EVERY_S = 0
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with a checkpoint at every epoch."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sweep(folder: Path) -> None:
    """In this process; its first checkpoint would be due after a minute."""
    assert main(["sweep", str(folder / "tiny.yaml"), "--runner", "serial", "--results", str(folder / "results")]) == 0


def sweep_until(folder: Path, key: str, epoch: int) -> Mapping[str, Any]:
    """Sweep in a process that is killed when the stage `key` has so many epochs; what its checkpoint says."""
    words = ("sweep", folder / "tiny.yaml", "--runner", "serial", "--results", folder / "results")
    process = subprocess.Popen(
        [sys.executable, "-c", EAGER, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    store, deadline = layout(folder).checkpoints, time.monotonic() + 120
    while facts(store, key).get("epoch", 0) < epoch and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    return facts(store, key)


def layout(folder: Path) -> Layout:
    return Layout(folder / "results")


def facts(store: CheckpointStore, key: str) -> Mapping[str, Any]:
    data = store.read(key)
    if data is None:
        return {}
    size = int.from_bytes(data[32:40], "little")
    return json.loads(json.loads(data[40 : 40 + size])["__metadata__"]["meta"])


def records(folder: Path) -> Mapping[str, StageRecord]:
    return replay(layout(folder).ledger).records


def stage_keys(folder: Path) -> tuple[str, ...]:
    """Of the cell: train, compress, evaluate."""
    trials = plan(load_spec(str(folder / "tiny.yaml")), lambda _: "fp32").trials
    return next(trial.path for trial in trials if trial.baseline is None)


def speeds(history: Sequence[Mapping[str, float]]) -> list[float]:
    """Images per second of each epoch: no two runs measure the same."""
    return [record["images_per_s"] for record in history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The study, run by one process that nobody touched."""
    command = Command(tmp_path_factory.mktemp("whole"))
    command.study(LONG)
    torch.set_num_threads(1)
    sweep(command.folder)
    return command


def claim_to_have_taken(seconds: float, store: CheckpointStore, key: str) -> None:
    """Write another time into the checkpoint of a stage."""
    data = store.read(key)
    assert data is not None
    checkpoint = load_checkpoint(data, Origin(**facts(store, key)["origin"]))
    store.write(key, save(replace(checkpoint, spent_s=seconds)))


def test_a_stage_that_is_killed_goes_on_in_its_middle_and_its_row_is_that_of_one_never_touched(
    whole: Command, command: Command, deterministic: Chosen
) -> None:
    command.study(LONG)
    train, compress, _ = stage_keys(command.folder)
    in_training = sweep_until(command.folder, train, 3)
    assert 3 <= in_training["epoch"] < in_training["epochs"]
    assert not records(command.folder), "it was killed in its first stage"
    in_compression = sweep_until(command.folder, compress, 3)
    assert train in records(command.folder)
    assert compress not in records(command.folder)
    claim_to_have_taken(1000, layout(command.folder).checkpoints, compress)
    sweep(command.folder)
    found = records(command.folder)
    for key, killed in ((train, in_training), (compress, in_compression)):
        assert speeds(found[key].history)[: killed["epoch"]] == speeds(killed["history"])
        assert len(found[key].history) == killed["epochs"]
    assert found[train].busy_s > in_training["spent_s"] > 0
    assert 1000 < found[compress].busy_s < 1100, "the seconds of all its parts"
    assert not list(layout(command.folder).checkpoints.root.iterdir()), "dropped when the stages were committed"
    expected = records(whole.folder)
    assert {key: record.artifact_sha256 for key, record in found.items()} == {
        key: record.artifact_sha256 for key, record in expected.items()
    }
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(whole.trials()), check_exact=True)


def test_a_checkpoint_that_is_no_good_is_passed_over_and_removed(
    whole: Command, command: Command, deterministic: Chosen
) -> None:
    command.study(LONG)
    train, compress, evaluate = stage_keys(command.folder)
    store = layout(command.folder).checkpoints
    store.write(train, b"damaged")
    store.write(evaluate, b"of a stage that makes none")
    killed = sweep_until(command.folder, compress, 1)
    assert killed["origin"]["stage"] == compress
    foreign = store.read(compress)
    assert foreign is not None
    store.path(compress).write_bytes(foreign[:-1])
    sweep(command.folder)
    assert speeds(records(command.folder)[compress].history)[0] != speeds(killed["history"])[0], "it began anew"
    assert not list(store.root.iterdir())
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(whole.trials()), check_exact=True)


def test_short_stages_write_no_checkpoint(whole: Command) -> None:
    assert not layout(whole.folder).checkpoints.root.exists()


def progress(epoch: int, made: list[int]) -> Progress:
    """An epoch of five whose checkpoint is its number."""

    def checkpoint() -> bytes:
        made.append(epoch)
        return b"%d" % epoch

    return Progress(epoch, 5, {}, may_stop=True, checkpoint=checkpoint)


def test_a_checkpoint_is_due_after_a_while_and_never_after_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, made = 0.0, list[int]()
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    store = CheckpointStore(tmp_path / "checkpoints")
    keeper = Keeper(store, "key")
    for epoch, now in enumerate((59.0, 61.0, 119.0, 122.0, 1000.0), start=1):  # noqa: B007 - read by the clock
        assert keeper(progress(epoch, made)) is False
    assert made == [2, 4]
    assert store.read("key") == b"4"


def test_dropping_removes_what_a_killed_process_left_too_and_nothing_of_others(tmp_path: Path) -> None:
    store = checkpoints.checkpoints_beside(ArtifactStore(tmp_path / "artifacts"))
    store.drop("a")
    for name in ("a", "b"):
        store.write(name, b"whole")
        (store.root / f".{name}.0123456789abcdef").write_bytes(b"half")
    store.drop("a")
    assert sorted(path.name for path in store.root.iterdir()) == [".b.0123456789abcdef", "b"]
    assert store.read("a") is None
    assert store.read("b") == b"whole"


def test_a_folder_that_cannot_be_written_costs_only_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    store = CheckpointStore(tmp_path / "checkpoints")
    store.write("key", b"lost")
    assert store.read("key") is None
    store.drop("key")
