"""What happens to a sweep whose stages want too much, take too long, or lose the machine under them."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import pandas as pd
import psutil
import pytest
from conftest import TINY, Command
from waiting import until

from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay

Chosen = Callable[[pd.DataFrame], pd.DataFrame]
SERIAL = ("--runner", "serial")
ONE_CELL = (
    TINY.replace("compress.pfr: [0, 0.5]", "compress.pfr: [0.5]")
    .replace("[0.5, 0.7]", "[0.7]")
    .replace("seeds: 2", "seeds: 1")
)
LONG = TINY.replace("epochs: 2", "epochs: 40").replace("train_size: 300", "train_size: 1200")
TOO_LITTLE = ("--set", "resources.memory=100MiB")
"""Less than the libraries take."""


def attempts(command: Command) -> list[StageRecord]:
    found = replay(Layout(command.folder / "results").ledger).attempts
    return [attempt for attempts in found.values() for attempt in attempts]


def test_a_stage_out_of_memory_is_tried_again_with_the_next_step_and_each_attempt_is_kept(command: Command) -> None:
    steps = ("--set", "retry.oom.memory=[200MiB, 16GiB]")
    output = command("sweep", command.study(ONE_CELL), *SERIAL, *TOO_LITTLE, *steps)
    assert "it is handed out again with 200 MiB" in output
    assert "it is handed out again with 16 GiB" in output
    stages = command.stages()
    assert (stages["status"] == "complete").all()
    assert (stages["earlier"] == "oom,oom").all()
    assert (stages["attempt"] == 3).all()
    assert (stages["memory_limit"] == 16 * 2**30).all()
    assert stages["peak_memory_bytes"].between(200 * 2**20, 16 * 2**30).all()
    tried = attempts(command)
    assert {(one.attempt, one.memory_limit, one.failure) for one in tried} == {
        (1, 100 * 2**20, "oom"), (2, 200 * 2**20, "oom"),
    }  # fmt: skip
    assert len(tried) == 2 * len(stages)
    told = command("show", command.trials()["trial_id"].iloc[0])
    assert "attempt 1 of run" in told
    assert "with 200 MiB: oom" in told


def test_without_more_to_give_it_is_a_row_and_a_later_run_waits_for_more(command: Command) -> None:
    study = command.study(ONE_CELL)
    never = ("--set", "retry.oom=0")
    output = command("sweep", study, *SERIAL, *TOO_LITTLE, *never, expect=1)
    assert "failed (oom): stage train: its process held" in output
    assert (command.trials()["failure"] == "oom").all()
    assert "0 stages ran" in command("sweep", study, *SERIAL, *TOO_LITTLE, *never, expect=1)
    assert "1 stage ran" in command("sweep", study, *SERIAL, *TOO_LITTLE, *never, "--retry-failed", expect=1)
    command("sweep", study, *SERIAL)
    assert (command.trials()["status"] == "complete").all()


def test_a_stage_that_takes_too_long_is_a_row_and_a_later_run_gives_it_longer(command: Command) -> None:
    longer = ONE_CELL.replace("train: {epochs: 2", "train: {epochs: 60").replace("train_size: 300", "train_size: 1200")
    study = command.study(longer)
    output = command("sweep", study, *SERIAL, "--set", "resources.train.timeout=0.3", expect=1)
    assert "timeout: it took longer than the 0.3 s of resources.timeout; it is handed out again" in output
    assert (command.trials()["failure"] == "timeout").all()
    assert list(command.stages()["earlier"]) == ["timeout"]
    command("sweep", study, *SERIAL, "--set", "resources.train.timeout=1h")
    assert (command.trials()["status"] == "complete").all()


def test_a_sweep_whose_stages_fail_alike_ends_early_and_says_so(command: Command) -> None:
    study = command.study(ONE_CELL.replace("seeds: 1", "seeds: 6"))
    words = ("sweep", study, *SERIAL, *TOO_LITTLE, "--set", "retry.oom=0", "--stop-after-same-error", 2)
    output = command(*words, expect=1)
    assert "Ended early (--stop-after-same-error): 2 stages failed alike (oom): its process held" in output
    trials = command.trials()
    failed = trials[trials["status"] == "failed"]
    assert 2 <= failed["seed"].nunique() < 6, "what was in hand is finished"
    assert trials["status"].isna().sum() == len(trials) - len(failed) > 0


def test_a_machine_that_is_asked_back_gets_a_checkpoint_from_which_the_next_run_goes_on(
    command: Command, deterministic: Chosen
) -> None:
    study = command.study(ONE_CELL.replace("epochs: 2", "epochs: 60"))
    layout = Layout(command.folder / "results")
    with sweeping(command, study, *SERIAL) as sweep:
        # The dense network and its evaluation are done: what is under way has 60 epochs to go.
        until(lambda: len(replay(layout.ledger).records) >= 2)
        sweep.process.send_signal(signal.SIGUSR1)
    assert sweep.process.returncode == 3, sweep.said
    assert sweep.tells("what runs stops at the end of its epoch and leaves a checkpoint")
    (tried,) = attempts(command)
    assert tried.failure == "preempted"
    assert "of 60 epochs are kept" in (tried.error or "")
    assert tried.key in {stored.key for stored in layout.checkpoints.keys()}
    command("sweep", study, *SERIAL)
    whole = Command(command.folder / "whole")
    whole.folder.mkdir()
    whole("sweep", whole.study(ONE_CELL.replace("epochs: 2", "epochs: 60")), *SERIAL)
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(whole.trials()), check_exact=True)


@dataclass
class Sweep:
    """A sweep on Ray under way, and what it says."""

    process: "subprocess.Popen[str]"
    said: list[str] = field(default_factory=list)

    def tells(self, text: str) -> bool:
        return any(text in line for line in self.said)

    def find(self, name: str) -> psutil.Process | None:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(child.cmdline()):
                    return child
        return None

    def until(self, text: str, strike: Callable[[psutil.Process], None], victim: str) -> None:
        """Strike a process again and again until the sweep tells of it: between two tasks a worker holds nothing."""
        deadline = time.monotonic() + 240
        while not self.tells(text):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            found = self.find(victim)
            if found is not None:
                with contextlib.suppress(psutil.Error):
                    strike(found)
            patience = time.monotonic() + 15
            while not self.tells(text) and time.monotonic() < patience and self.process.poll() is None:
                time.sleep(0.1)


@contextlib.contextmanager
def sweeping(command: Command, *words: object) -> Generator[Sweep]:
    process = command.start("sweep", *words)
    assert process.stdout is not None
    sweep = Sweep(process)
    listener = threading.Thread(target=sweep.said.extend, args=(process.stdout,))
    listener.start()
    try:
        yield sweep
    finally:
        if process.poll() is None:
            process.wait(timeout=400)
        listener.join()
        process.stdout.close()


AT_WORK = "ray::StageWorker.train"


@pytest.mark.chaos
@pytest.mark.ray
def test_a_worker_asked_back_and_a_raylet_killed_cost_what_was_in_hand(command: Command, deterministic: Chosen) -> None:
    study = command.study(LONG)
    with sweeping(command, study, "--cores", 2) as sweep:
        sweep.until(" preempted: ", lambda worker: worker.terminate(), AT_WORK)
        sweep.until("the runner broke and is started again", lambda raylet: raylet.kill(), "raylet/raylet")
    assert sweep.process.returncode == 0, sweep.said
    assert not sweep.tells("Traceback")
    assert (command.trials()["status"] == "complete").all()
    assert "preempted" in {one.failure for one in attempts(command)}
    records = replay(Layout(command.folder / "results").ledger).records
    assert len(records) == 20
    again = Command(command.folder / "again")
    again.folder.mkdir()
    again("sweep", again.study(LONG), *SERIAL)
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(again.trials()), check_exact=True)


@pytest.mark.chaos
@pytest.mark.ray
def test_a_stopped_worker_is_killed_alone_at_its_time(command: Command) -> None:
    study = command.study(LONG)
    with sweeping(command, study, "--cores", 2, "--set", "resources.timeout=40") as sweep:
        # One that is stopped before its first stage has begun is not under that stage's time.
        until(lambda: len(replay(Layout(command.folder / "results").ledger).records) >= 2)
        sweep.until(" timeout: ", lambda worker: os.kill(worker.pid, signal.SIGSTOP), AT_WORK)
    assert sweep.process.returncode == 0, sweep.said
    assert not sweep.tells("the runner broke")
    assert {one.failure for one in attempts(command)} == {"timeout"}
    assert (command.trials()["status"] == "complete").all()


@pytest.mark.chaos
@pytest.mark.ray
def test_memory_rises_by_the_ladder_on_ray_too(command: Command) -> None:
    steps = ("--set", "retry.oom.memory=[6GiB]")
    output = command("sweep", command.study(ONE_CELL), "--cores", 2, *TOO_LITTLE, *steps)
    assert "it is handed out again with 6 GiB" in output
    assert (command.stages()["earlier"] == "oom").all()
    assert (command.trials()["status"] == "complete").all()
    refused = command("sweep", "tiny.yaml", "--set", "seeds=2", "--set", "resources.memory=900TiB", expect=2)
    assert "no machine has what resources ask for a worker" in refused


@pytest.mark.chaos
@pytest.mark.ray
def test_a_worker_that_rays_memory_monitor_kills_is_out_of_memory(command: Command) -> None:
    """Above a threshold that every machine is above the monitor kills whoever works."""
    ray = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    tight = Command(command.folder, ray)
    output = tight("sweep", tight.study(ONE_CELL.replace("epochs: 2", "epochs: 200")), "--cores", 1, expect=1)
    assert "Ray's memory monitor ended its process" in output
    assert (command.trials()["failure"] == "oom").all()
    assert set(command.stages()["earlier"]) == {"oom"}
