"""A study is run once, whatever runs it and whatever interrupts it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from conftest import TINY, Command

from orchestrator.layout import Layout
from orchestrator.ledger import replay
from orchestrator.plan import Plan, plan
from orchestrator.spec.load import load_spec
from trainables.keys import PathFinder
from trainables.stages import run_stage
from trainables.stages.datasets import Datasets

Chosen = Callable[[pd.DataFrame], pd.DataFrame]
STAGES_OF_TINY = 2 + 2 * (1 + 1 + 2) + 2 * 2 + 2 * 4  # train, compress (binary, finetune, 2 x stq), evaluate
SERIAL = ("--runner", "serial")


def planned(path: Path) -> Plan:
    return plan(load_spec(str(path)), lambda _: "fp32")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The tiny study, run in one process without interruption: what all other ways are compared with."""
    command = Command(tmp_path_factory.mktemp("serial"))
    command("sweep", command.study(), *SERIAL)
    return command


def test_every_trial_is_a_complete_row_with_its_baselines(swept: Command) -> None:
    df = swept.trials()
    assert (df["status"] == "complete").all()
    assert dict(df.groupby("role").size()) == {"cell": 8, "baseline": 6}
    assert sorted(df["baseline"].dropna().unique()) == ["binary", "dense", "dense_finetuned"]
    cells = df[df["role"] == "cell"]
    measured = ["accuracy", "compression", "wall_time_s", "accuracy_drop", "binary_accuracy_drop"]
    assert cells[measured].notna().all(axis=None)
    assert (cells["wall_time_s"] == cells["train_s"] + cells["compress_s"]).all()
    assert (df["test_images"] == 360).all()


def test_drops_are_differences_from_the_baselines_of_the_same_seed(swept: Command) -> None:
    df = swept.trials()
    for seed, rows in df.groupby("seed"):
        by_name = rows.dropna(subset="baseline").set_index("baseline")["accuracy"]
        cells = rows[rows["role"] == "cell"]
        assert (cells["accuracy_drop"] == by_name["dense_finetuned"] - cells["accuracy"]).all(), seed
        assert (cells["dense_accuracy"] == by_name["dense"]).all(), seed
        unpruned = cells[cells["compress.pfr"] == 0]
        assert (unpruned["binary_accuracy_drop"] == 0).all(), "STQ at PFR 0 is binary"


def test_a_shared_stage_ran_once(swept: Command) -> None:
    records = replay(Layout(swept.folder / "results").ledger).records
    stages = planned(swept.folder / "tiny.yaml").stages
    assert set(records) == set(stages)
    assert len(list((swept.folder / "results" / ".store" / "ledger").iterdir())) == 1
    lines = next((swept.folder / "results" / ".store" / "ledger").iterdir()).read_text().splitlines()
    assert len(lines) == 1 + len(stages)


def test_shared_equals_unshared_bit_for_bit(swept: Command) -> None:
    """Each trial on its own, from scratch, gives the numbers that the shared forest gave."""
    torch.set_num_threads(1)
    whole = planned(swept.folder / "tiny.yaml")
    table = swept.trials().set_index("trial_id")
    for trial in random.Random(0).sample(whole.trials, 3):
        artifact, datasets = None, Datasets(Path("data"))
        found: dict[str, object] = {}
        for stage in PathFinder().path(trial.config, trial.seed):
            outcome = run_stage(stage, datasets.of(stage.config.data, stage.seed), artifact)
            artifact, found = outcome.artifact, found | dict(outcome.metrics)
        row: dict[Any, Any] = table.loc[trial.id].to_dict()
        assert {name: None if pd.isna(row[name]) else row[name] for name in found} == found


@pytest.mark.ray
def test_ray_equals_serial_bit_for_bit(swept: Command, command: Command, deterministic: Chosen) -> None:
    output = command("sweep", command.study(), "--cores", 2)
    assert "Pareto front" in output
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(swept.trials()), check_exact=True)
    assert command.stages()["pid"].nunique() == 2, "both workers had work"


def test_a_repeated_sweep_runs_nothing(swept: Command) -> None:
    before = (swept.folder / "results" / "tiny" / "trials.parquet").read_bytes()
    output = swept("sweep", "tiny.yaml")
    assert "0 stages ran" in output
    assert (swept.folder / "results" / "tiny" / "trials.parquet").read_bytes() == before
    assert len(list((swept.folder / "results" / ".store" / "ledger").iterdir())) == 1


def test_a_value_added_to_an_axis_runs_only_the_new_cells(swept: Command) -> None:
    swept.study(TINY.replace("[0, 0.5]", "[0, 0.25, 0.5]").replace("study: tiny", "study: wider"), "wider.yaml")
    output = swept("sweep", "wider.yaml", *SERIAL)
    # Per seed two thresholds at one new PFR, each compressed and evaluated.
    assert f"{2 * 2 * 2} stages ran" in output
    assert len(swept.trials("wider")) == 12 + 6


def test_a_diverged_trial_is_a_row_and_the_sweep_goes_on(command: Command) -> None:
    text = TINY.replace("compress.threshold: [0.5, 0.7]", "train.lr: [0.05, 1.0e+30]").replace("seeds: 2", "seeds: 1")
    output = command("sweep", command.study(text), *SERIAL, expect=1)
    assert "failed" in output
    df = command.trials()
    bad = df[df["train.lr"] > 1]
    assert (bad["status"] == "failed").all()
    assert (bad["failure"] == "diverged").all()
    assert bad["error"].str.contains("loss became").all()
    assert bad[["accuracy", "compression", "accuracy_drop"]].isna().all(axis=None)
    assert (df[df["train.lr"] < 1]["status"] == "complete").all()
    assert "0 stages ran" in command("sweep", "tiny.yaml", *SERIAL, expect=1), "a settled failure is not repeated"


def test_a_lost_or_damaged_output_is_made_again_only_where_it_is_needed(swept: Command, tmp_path: Path) -> None:
    command = Command(tmp_path)
    subprocess.run(["cp", "-r", str(swept.folder / "results"), str(tmp_path)], check=True)
    text = TINY.replace("seeds: 2", "seeds: 1")
    stages = planned(command.study(text)).stages
    store = Layout(tmp_path / "results").artifacts
    for stage in stages.values():
        store.path(stage.key).write_bytes(b"damaged")
    assert "0 stages ran" in command("sweep", "tiny.yaml", *SERIAL), "nothing below needs them"
    command.study(text.replace("[0, 0.5]", "[0.75]"))
    # The dense parent again, then two new cells of two stages.
    assert "5 stages ran" in command("sweep", "tiny.yaml", *SERIAL)


def finished(command: Command) -> int:
    """How many stages are on disk at this moment."""
    return len(replay(Layout(command.folder / "results").ledger).records)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.ray
def test_a_killed_driver_loses_nothing_that_was_finished(
    swept: Command, command: Command, deterministic: Chosen
) -> None:
    """kill -9 after some stages, twice; then the table is that of a run that nobody touched."""
    command.study()
    for goal in (3, 9):
        process = command.start("sweep", "tiny.yaml")
        wait_until(lambda goal=goal: finished(command) >= goal, process)
        assert process.poll() is None, "it was to be killed in the middle"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    kept, whole = finished(command), len(planned(command.folder / "tiny.yaml").stages)
    assert 9 <= kept < whole
    output = command("sweep", "tiny.yaml")
    assert f"{whole - kept} stages ran" in output
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(swept.trials()), check_exact=True)


def kill_a_worker(process: "subprocess.Popen[str]") -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "StageWorker" in " ".join(child.cmdline()):
                child.kill()
                return


@pytest.mark.ray
def test_a_killed_worker_costs_only_what_it_held(command: Command) -> None:
    """Worker after worker is killed until one had a stage in hand: between two tasks it holds nothing."""
    process = command.start("sweep", command.study(TINY.replace("epochs: 2", "epochs: 60")))
    assert process.stdout is not None
    said: list[str] = []
    listener = threading.Thread(target=said.extend, args=(process.stdout,))
    listener.start()
    lost = lambda: any("the worker was lost" in line for line in said)  # noqa: E731
    wait_until(lambda: finished(command) >= 2, process)
    while process.poll() is None and not lost():
        kill_a_worker(process)
        wait_until(lost, process, seconds=5)
    process.wait(timeout=300)
    listener.join()
    process.stdout.close()
    assert process.returncode == 0, said
    assert lost(), said
    assert (command.trials()["status"] == "complete").all()
    assert sorted(command.stages()["attempt"].unique()) == [1, 2]


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_the_next_run_goes_on(command: Command, number: signal.Signals) -> None:
    process = command.start("sweep", command.study(TINY.replace("epochs: 2", "epochs: 20")))
    wait_until(lambda: finished(command) >= 2, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    told = {signal.SIGINT: "what runs is finished and kept", signal.SIGTERM: "what runs stops at the end of its epoch"}
    assert f"stopping: {told[number]}" in output
    kept = finished(command)
    assert 2 <= kept < len(planned(command.folder / "tiny.yaml").stages)
    assert command.trials()["status"].isna().any()


@pytest.mark.ray
def test_an_address_joins_a_running_cluster(swept: Command, command: Command, deterministic: Chosen) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        command("sweep", command.study(), "--address", cluster.address)
    finally:
        cluster.shutdown()
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(swept.trials()), check_exact=True)


def test_ctrl_c_drains_the_serial_runner_too(command: Command) -> None:
    process = command.start("sweep", command.study(TINY.replace("epochs: 2", "epochs: 20")), *SERIAL)
    wait_until(lambda: finished(command) >= 1, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output


def test_a_running_study_refuses_another_plan_and_lets_an_equal_one_wait(command: Command) -> None:
    process = command.start("sweep", command.study(), *SERIAL)
    lock = command.folder / "results" / ".store" / "locks" / "tiny"
    wait_until(lambda: lock.exists() and bool(lock.read_text()), process)
    output = command("sweep", "tiny.yaml", "--set", "seeds=1", *SERIAL, expect=2)
    assert f"is being run with another plan by process {process.pid}" in output
    assert "0 stages ran" in command("sweep", "tiny.yaml", *SERIAL), "the equal plan waited for the first"
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_the_saved_study_gives_the_same_plan(swept: Command) -> None:
    saved = planned(swept.folder / "results" / "tiny" / "_study.yaml")
    assert saved.digest == planned(swept.folder / "tiny.yaml").digest


def test_history_has_a_row_for_each_epoch_of_each_training(swept: Command) -> None:
    history = pd.read_parquet(swept.folder / "results" / "tiny" / "_history.parquet")
    trainings = [stage for stage in planned(swept.folder / "tiny.yaml").stages.values() if stage.kind != "evaluate"]
    assert len(history) == 2 * len(trainings)
    assert history["val_accuracy"].between(0, 1).all()


def test_columns_that_nothing_documents_do_not_exist(swept: Command) -> None:
    printed = json.loads(swept("columns", "--json"))
    known = {column["name"] for column in printed}
    from orchestrator.analysis.tables import is_config_column

    assert {name for name in swept.trials().columns if not is_config_column(name)} == known


@pytest.mark.ray
def test_a_worker_that_cannot_begin_keeps_its_traceback(command: Command) -> None:
    """Tune tells its searcher of a failed trial nothing but that it failed."""
    (command.folder / "torch_pruning.py").write_text("raise ImportError('half of an installation')\n")
    broken = Command(command.folder, {"PYTHONPATH": str(command.folder)})
    study = TINY.replace("seeds: 2", "seeds: 1").replace("[0, 0.5]", "[0.5]").replace("[0.5, 0.7]", "[0.7]")
    output = broken("sweep", broken.study(study), expect=1)
    assert "half of an installation; it is handed out again" in output
    failed = broken.trials()
    assert (failed["failure"] == "lost").all()
    assert failed["error"].str.contains("Traceback").all()
    assert failed["error"].str.contains("half of an installation").all()
