"""`sweep --log`: trials reach other tools as they end, and nothing that a tool does reaches the sweep."""

import argparse
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import report_tables as made
from conftest import Command

from orchestrator.errors import RunError, StoreError, TableError
from orchestrator.live_log import LiveLogs, Target, target
from orchestrator.loggers.follow import follow
from orchestrator.loggers.registry import LOGGERS, check_installed


def logged(out: Path) -> set[str]:
    return {path.parent.name for path in out.rglob("trial.json")}


def test_ended_trials_are_handed_over_as_they_come_and_changed_ones_at_the_end(tmp_path: Path) -> None:
    folder, out = tmp_path / "results" / "made_up", tmp_path / "logs"
    rows = [row | {"accuracy_drop": None} for row in made.rows()]
    seen: list[set[str]] = []

    def ended(seconds: float) -> bool:
        assert seconds >= 5
        seen.append(logged(out))
        if len(seen) == 1:
            return False  # nothing is there yet
        if len(seen) in (2, 3):
            made.write(folder, rows[: 4 * len(seen)])
            rows[0]["accuracy_drop"] = 0.01
            return False
        return True

    total = follow(folder, "tensorboard", out, ended)
    assert seen == [set(), set(), {row["trial_id"] for row in rows[:8]}, {row["trial_id"] for row in rows[:12]}]
    assert (total.new, total.renewed, total.known) == (0, 1, 11)


def test_a_table_that_cannot_be_read_is_told_at_the_end_alone(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "made_up", made.rows(), beside=False)
    whole = (folder / "trials.parquet").read_bytes()
    (folder / "trials.parquet").write_bytes(whole[:100])
    asked = iter([False, True])
    with pytest.raises(TableError, match="truncated"):
        follow(folder, "tensorboard", tmp_path / "logs", lambda _: next(asked))


def test_a_target_is_a_tool_and_a_folder() -> None:
    assert target("mlflow:a/b") == Target("mlflow", Path("a/b"))
    assert target("wandb") == Target("wandb", Path("logs"))
    with pytest.raises(argparse.ArgumentTypeError, match="'mlfow' is no tool that takes trials; valid are mlflow"):
        target("mlfow")


def test_what_cannot_work_is_refused_before_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"/file/logs: cannot be written: Not a directory"):
        LiveLogs([Target("tensorboard", tmp_path / "file" / "logs")], tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in LOGGERS:
        with pytest.raises(RunError, match=r"is not installed; the logger .* needs it: pip install"):
            check_installed(name)


def test_a_tool_that_fails_is_told_and_the_other_has_all(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "results" / "made_up", made.rows())
    targets = [Target("tensorboard", tmp_path / "good"), Target("tensorboard", tmp_path / "bad")]
    with LiveLogs(targets, folder) as logs:
        (tmp_path / "bad").rmdir()
        (tmp_path / "bad").write_text("in the way")
        good, bad = logs.finish()
    assert good.startswith(f"{tmp_path}/good: 13 runs written; look at it: tensorboard --logdir")
    assert logged(tmp_path / "good") == {row["trial_id"] for row in made.rows()}
    assert bad.startswith("--log tensorboard failed, the sweep did not: ")
    assert "cannot be written" in bad


@pytest.mark.ray
def test_a_killed_sweep_leaves_its_finished_trials_with_the_tool(command: Command) -> None:
    sweep = command.start("sweep", command.study(), "--runner", "serial", "--log", "tensorboard:logs")
    table, end = command.folder / "results" / "tiny" / "trials.parquet", time.monotonic() + 120
    while time.monotonic() < end and not (
        table.exists() and (pd.read_parquet(table, columns=["status"])["status"] == "complete").any()
    ):
        time.sleep(0.1)
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate(timeout=60)
    finished = set(command.trials().dropna(subset="status")["trial_id"])
    while time.monotonic() < end and logged(command.folder / "logs") < finished:
        time.sleep(0.1)
    assert finished
    assert logged(command.folder / "logs") == finished
    told = command("sweep", command.folder / "tiny.yaml", "--runner", "serial", "--log", "tensorboard:logs")
    assert "look at it: tensorboard --logdir logs" in told
    assert logged(command.folder / "logs") == set(command.trials()["trial_id"])
