"""Following a sweep from outside: what is told of it is what it left on disk, and it is not disturbed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TINY, Command
from rich.console import Console

from orchestrator.cli import main
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, StageRecord
from orchestrator.locks import study_lock
from orchestrator.watch import Follower, Progress, known_studies
from orchestrator.watch_command import _ended as ended  # pyright: ignore[reportPrivateUsage]
from orchestrator.watch_screen import WatchScreen, progress_line, time_line

NOW = time.time()


def tables(root: Path, *, failed: bool = False, finished: bool = False, study: str = "s") -> Path:
    """Two seeds with two cells each: one dense network done, one compressed from it, the rest open."""
    folder = root / study
    folder.mkdir(parents=True, exist_ok=True)
    rows, stages = list[dict[str, Any]](), list[dict[str, Any]]()
    done = {"t0", "a0", "ea0"} if not finished else {f"{k}{s}" for k in ("t", "a", "b", "ea", "eb") for s in (0, 1)}
    bad = {"b0"} if failed else set[str]()
    for seed in (0, 1):
        for cell in "ab":
            path = (f"t{seed}", f"{cell}{seed}", f"e{cell}{seed}")
            status = "failed" if bad & set(path) else "complete" if set(path) <= done else None
            rows.append(
                {
                    "study": study,
                    "trial_id": f"{cell}{seed}",
                    "role": "cell",
                    "baseline": None,
                    "seed": seed,
                    "status": status,
                    "error": "stage compress: loss is NaN\n at epoch 2" if status == "failed" else None,
                    "finished_at": pd.Timestamp(NOW, unit="s", tz="UTC") if status else pd.NaT,
                    "compress.pfr": 0.1 if cell == "a" else 0.4,
                    "stage_keys.select": None,
                    "stage_keys.train": path[0],
                    "stage_keys.compress": path[1],
                    "stage_keys.evaluate": path[2],
                    "accuracy": 0.9 if status == "complete" else None,
                    "compression": 10.0 if status == "complete" else None,
                }
            )
    for i, key in enumerate(sorted(done - ({"eb0"} if failed else set()) | bad)):
        kind = {"t": "train", "e": "evaluate"}.get(key[0], "compress")
        stages.append(
            {
                "key": key,
                "stage": kind,
                "parent": None,
                "status": "failed" if key in bad else "complete",
                "busy_s": 2.0,
                "started_at": pd.Timestamp(NOW + 2 * i, unit="s", tz="UTC"),
                "finished_at": pd.Timestamp(NOW + 2 * i + 2, unit="s", tz="UTC"),
                "run": "r",
            }
        )
    frame = pd.DataFrame(rows).astype({"accuracy": float, "compression": float})
    frame.to_parquet(folder / "trials.parquet")
    pd.DataFrame(stages).to_parquet(folder / "_stages.parquet")
    (folder / "_study.yaml").write_text(f"study: {study}\n")
    return folder


@contextmanager
def running(root: Path, study: str = "s", since_s: float = 20.0) -> Generator[None]:
    """A sweep holds the lock of the study, as another process would."""
    lock = root / ".store" / "locks" / study
    with study_lock(lock, "digest") as other:
        assert other is None
        os.utime(lock, (NOW - since_s, NOW - since_s))
        yield


def test_progress_is_that_of_the_tables(tmp_path: Path) -> None:
    tables(tmp_path)
    with running(tmp_path):
        standing = Follower(Layout(tmp_path), "s").look()
    assert standing.stages == {
        "train": Progress(2, 1, 0, 1, 1), "compress": Progress(4, 1, 0, 3, 1), "evaluate": Progress(4, 1, 0, 3, 0),
    }  # fmt: skip
    assert standing.trials == {"complete": 1, "open": 3}
    assert standing.runner is not None
    assert standing.runner.pid == os.getpid()
    # 7 stages of 2 s each are open, one at a time as before.
    assert standing.left_s == pytest.approx(14)
    assert progress_line(standing) == (
        "3/10 stages done: train 1/2, compress 1/4, evaluate 1/4, 2 ready or running; 1/4 trials complete"
    )


SEARCH = """\
study: s
base: {data: {name: digits}, model: {name: resnet8, width: 4}, train: {epochs: 1}, compress: {method: stq}}
axes: {compress.pfr: {uniform: [0, 0.6]}}
seeds: 2
"""


def test_a_search_that_will_ask_more_is_open_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tables(tmp_path)
    (folder / "_study.yaml").write_text(SEARCH + "search: {name: tpe, trials: 3}\n")
    with running(tmp_path):
        standing = Follower(Layout(tmp_path), "s").look()
    assert standing.left_s is None
    assert progress_line(standing) == (
        "3/10+ stages done: train 1/2+, compress 1/4+, evaluate 1/4+, 2 ready or running; 1/4+ trials complete"
    )
    assert time_line(standing).endswith(", 2 of 3 configs asked for")
    tables(tmp_path, finished=True)
    (folder / "_study.yaml").write_text(SEARCH + "search: {name: tpe, trials: 3}\n")
    assert main(["watch", str(folder)]) == 3, "a config is still to be asked for"
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert "incomplete" in capsys.readouterr().out
    (folder / "_study.yaml").write_text(SEARCH + "search: {name: tpe, trials: 2}\n")
    assert main(["watch", str(folder)]) == 0


def test_adaptive_repeats_are_open_ended_while_trials_are_open(tmp_path: Path) -> None:
    folder = tables(tmp_path)
    (folder / "_study.yaml").write_text(SEARCH + "search: {name: random, trials: 2, repeats: adaptive}\n")
    with running(tmp_path):
        standing = Follower(Layout(tmp_path), "s").look()
        assert standing.left_s is None
        assert standing.asked == "4 trials so far, more seeds where they decide"
    tables(tmp_path, finished=True)
    assert not Follower(Layout(tmp_path), "s").look().asked


def test_missing_latencies_are_no_finished_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tables(tmp_path, finished=True)
    df = pd.read_parquet(folder / "trials.parquet")
    wanted = {"latency.runtimes": "openvino,packed", "latency.batch": "1", "dense_accuracy": 0.9}
    df.assign(**wanted).to_parquet(folder / "trials.parquet")
    study = SEARCH.replace(
        "compress: {method: stq}", "compress: {method: stq}, latency: {runtimes: [openvino, packed]}"
    )
    (folder / "_study.yaml").write_text(study + "search: {name: tpe, trials: 2}\n")
    keys = ["ea0", "eb0", "ea1", "eb1"]

    def taken(count: int) -> None:
        pd.DataFrame({"stage_keys.evaluate": (keys * 2)[:count]}).to_parquet(folder / "_latency.parquet")

    taken(5)
    standing = Follower(Layout(tmp_path), "s").look()
    assert standing.unmeasured == 3
    assert ended(standing) == 3
    assert "All is trained; 3 latencies are not measured.\n" in capsys.readouterr().out
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert "not timed" in capsys.readouterr().out
    taken(8)
    assert ended(Follower(Layout(tmp_path), "s").look()) == 0
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert "done" in capsys.readouterr().out


def test_what_failed_is_counted_by_stage_and_what_lies_below_is_not_ready(tmp_path: Path) -> None:
    tables(tmp_path, failed=True)
    with running(tmp_path):
        standing = Follower(Layout(tmp_path), "s").look()
    assert standing.stages["compress"] == Progress(4, 2, 1, 2, 0)
    assert standing.stages["evaluate"] == Progress(4, 1, 0, 2, 0)
    assert [(one.count, one.status, one.error) for one in standing.troubles] == [
        (1, "failed", "stage compress: loss is NaN at epoch 2")
    ]


def test_a_table_of_an_earlier_run_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    folder = tables(tmp_path, finished=True)
    for path in folder.iterdir():
        os.utime(path, (NOW - 100, NOW - 100))
    follower = Follower(Layout(tmp_path), "s")
    with running(tmp_path):
        standing = follower.look()
        assert not standing.has_table
        assert progress_line(standing) == "no table yet; starting"
        record = StageRecord("k", "train", None, 0, "complete", 1.0, NOW, NOW + 1)
        ledger = LedgerWriter(Layout(tmp_path).ledger, "r")
        ledger.commit([record])
        ledger.close()
        assert Follower(Layout(tmp_path), "s").look().early == {"train": 1}
    assert follower.look().has_table


def test_looking_changes_nothing_on_disk(tmp_path: Path) -> None:
    tables(tmp_path)
    with running(tmp_path):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        follower = Follower(Layout(tmp_path), "s")
        follower.look()
        follower.front()
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_live_picture_fits_the_terminal_and_shows_the_front(tmp_path: Path) -> None:
    tables(tmp_path, failed=True)
    for width in (80, 120):
        terminal = Console(width=width, height=30, force_terminal=True, record=True, color_system=None)
        follower = Follower(Layout(tmp_path), "s")
        with running(tmp_path):
            terminal.print(WatchScreen(terminal, follower).picture(follower.look()))
        told = terminal.export_text()
        assert all(len(line) <= width for line in told.splitlines())
        assert "compress" in told
        assert "1 failed" in told
        assert "1 failed: stage compress: loss is NaN at epoch 2" in told
        assert "front of 1 point so far" in told
        assert "90.00 %" in told


@pytest.mark.parametrize(("state", "code"), [({"finished": True}, 0), ({"finished": True, "failed": True}, 1), ({}, 3)])
def test_without_a_sweep_the_state_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: dict[str, Any], code: int
) -> None:
    tables(tmp_path, **state)
    assert main(["watch", str(tmp_path), "s"]) == code
    told = capsys.readouterr().out
    assert told.startswith("No sweep is running.\n")
    assert ("incomplete" in told) == (code == 3)
    assert main(["watch", str(tmp_path / "s")]) == code


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path / "no")]) == 2
    assert "no study was begun here; run one with: orchestrator sweep smoke.yaml" in capsys.readouterr().err
    tables(tmp_path, study="fashion")
    assert main(["watch", str(tmp_path), "fashoin"]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: no study 'fashoin'; did you mean 'fashion'?\n"
    Layout(tmp_path).lock("begun").parent.mkdir(parents=True)
    Layout(tmp_path).lock("begun").write_text(json.dumps({"digest": "d", "pid": 1, "host": "h"}))
    assert main(["watch", str(tmp_path), "begun"]) == 3
    assert "no sweep is running, and none has left a table" in capsys.readouterr().out


def test_a_study_that_runs_in_parts_is_followed_by_its_own_name(tmp_path: Path) -> None:
    tables(tmp_path)
    with running(tmp_path, "s@2of3"), running(tmp_path, "_gc"):
        assert known_studies(Layout(tmp_path)) == ["s"]
        assert Follower(Layout(tmp_path), "s").look().runner is not None
    assert Follower(Layout(tmp_path), "s").look().runner is None


def test_of_several_that_run_the_last_is_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables(tmp_path, study="one")
    tables(tmp_path, study="two")

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    with running(tmp_path, "one", 30), running(tmp_path, "two", 20):
        monkeypatch.setattr(WatchScreen, "show", leave)
        assert main(["watch", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert captured.err == "following two, begun last; also running: one (name one to follow it)\n"
    assert captured.out == ""


def test_a_sweep_is_followed_from_before_its_first_table_to_its_end(command: Command) -> None:
    sweep = command.start("sweep", command.study(TINY.replace("epochs: 2", "epochs: 10")), "--runner", "serial")
    lock = Layout(command.folder / "results").lock("tiny")
    wait_for(lock.exists, sweep)
    watcher, leaver = command.start("watch", "results"), command.start("watch", "results")
    assert leaver.stdout is not None
    assert leaver.stdout.readline().startswith("tiny: ")
    leaver.send_signal(signal.SIGINT)
    assert leaver.communicate(timeout=60)[0].count("\n") <= 2
    assert leaver.returncode == 130
    told, _ = watcher.communicate(timeout=300)
    sweep.communicate(timeout=60)
    assert sweep.returncode == 0
    assert watcher.returncode == 0, told
    lines = told.splitlines()
    assert lines[-1] == "tiny: finished"
    assert "14/14 trials complete" in lines[-2]


def wait_for(there: Any, process: "subprocess.Popen[str]") -> None:
    while not there():
        assert process.poll() is None
        time.sleep(0.05)
