"""A stage is held to its memory and its time, by its own process and, where that cannot, by the guard."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.runner import guard as guarding
from orchestrator.runner.guard import Guard
from orchestrator.runner.limits import Held, Limits, StageStopped, asked_back_by_signals
from orchestrator.spec.resources import Demand

MIB = 2**20


def wait(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def spin() -> None:
    """A loop that ends by itself, so that a test that should stop it fails instead of hanging."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pass


def test_a_loop_without_end_is_stopped_at_its_time() -> None:
    told = r"longer than the 0\.3 s of resources\.timeout"
    with pytest.raises(StageStopped, match=told) as caught, Limits().holding(Demand(timeout_s=0.3), None):
        spin()
    assert caught.value.failure == "timeout"


def test_a_call_that_waits_is_woken() -> None:
    started = time.monotonic()
    with pytest.raises(StageStopped), Limits().holding(Demand(timeout_s=0.2), None):
        time.sleep(60)
    assert time.monotonic() - started < 30


def test_nothing_on_the_way_out_takes_it_for_a_failure_of_its_own() -> None:
    with pytest.raises(StageStopped), Limits().holding(Demand(timeout_s=0.2), None), suppress(Exception):
        spin()


def test_a_stage_that_grows_beyond_its_memory_is_stopped_and_its_peak_is_known() -> None:
    now, held, used = guarding.resident(os.getpid()), list[bytearray](), list[Held]()

    def grow() -> None:
        with Limits().holding(Demand(memory=now + 64 * MIB), None) as use:
            used.append(use)
            while len(held) < 100:
                held.append(bytearray(os.urandom(1)) * (8 * MIB))
                time.sleep(0.02)

    with pytest.raises(StageStopped, match=r"that resources\.memory gives it") as caught:
        grow()
    (use,) = used
    assert caught.value.failure == "oom"
    assert use.peak > now + 64 * MIB
    assert 64 * MIB <= use.grown <= 100 * 8 * MIB


def test_the_peak_is_that_of_the_stage_not_of_the_one_before() -> None:
    limits = Limits()
    with limits.holding(Demand(), None) as first:
        held = bytearray(os.urandom(1)) * (256 * MIB)
    del held
    with limits.holding(Demand(), None) as second:
        pass
    assert first.grown >= 250 * MIB
    assert second.grown < 50 * MIB


def test_limits_of_a_stage_that_is_over_stop_nothing() -> None:
    limits = Limits()
    with limits.holding(Demand(timeout_s=0.2), None):
        pass
    time.sleep(0.5)
    with limits.holding(Demand(timeout_s=30), None):
        time.sleep(0.3)


def test_a_signal_asks_the_process_back_and_is_heeded_by_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    monkeypatch.setattr("orchestrator.runner.limits._leave_after", left.append)
    limits = Limits()
    with asked_back_by_signals(limits):
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert wait(lambda: limits.preempted)
    assert wait(lambda: len(left) == 1), "the process leaves once, after a grace"


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def guard(process: "subprocess.Popen[bytes]", note: Path, **limits: object) -> Guard:
    found = Guard(process.pid)
    found.told({"note": str(note), "memory": None, "timeout_s": None, **limits})
    return found


def look_until(found: Guard, note: Path, monkeypatch: pytest.MonkeyPatch, skip_s: float = 0.0) -> dict[str, object]:
    """What the note says, after `skip_s` seconds that nobody waits for."""
    found.look()
    real = time.monotonic
    monkeypatch.setattr(guarding.time, "monotonic", lambda: real() + skip_s)
    found.look()
    return json.loads(note.read_text()) if note.exists() else {}


def test_the_guard_kills_a_stopped_worker_at_its_time_and_says_so(
    sleeper: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    said = look_until(
        guard(sleeper, tmp_path / "n", timeout_s=60), tmp_path / "n", monkeypatch, 60 + 2 * guarding.GRACE_S
    )
    assert said["failure"] == "timeout"
    assert sleeper.wait(30) == -signal.SIGKILL


def test_without_a_timeout_a_worker_that_stands_still_is_lost_after_a_while(
    sleeper: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, note = guard(sleeper, tmp_path / "n"), tmp_path / "n"
    assert look_until(found, note, monkeypatch, guarding.STOPPED_S + 1) == {}, "it runs, however long"
    sleeper.send_signal(signal.SIGSTOP)
    assert wait(lambda: guarding.state(sleeper.pid) == "T")
    said = look_until(found, note, monkeypatch, 2 * guarding.STOPPED_S + 9)
    assert said["failure"] == "lost"
    assert sleeper.wait(30) == -signal.SIGKILL


def test_a_worker_that_stands_still_before_its_first_stage_is_killed_without_a_note(
    sleeper: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    assert wait(lambda: guarding.state(sleeper.pid) == "T")
    assert look_until(Guard(sleeper.pid), tmp_path / "n", monkeypatch, guarding.STOPPED_S + 1) == {}
    assert sleeper.wait(30) == -signal.SIGKILL


def test_the_guard_kills_a_worker_that_stays_beyond_its_memory(
    sleeper: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wait(lambda: guarding.resident(sleeper.pid) > MIB)
    note = tmp_path / "notes" / "n"
    said = look_until(guard(sleeper, note, memory=MIB), note, monkeypatch, 2 * guarding.GRACE_S)
    assert said["failure"] == "oom"
    assert "of the 1 MiB that it was given" in str(said["reason"])


@pytest.mark.parametrize(
    ("kills", "preempted", "failure"), [([0, 0], False, "lost"), ([0, 1], False, "oom"), ([0, 1], True, "preempted")]
)
def test_a_death_is_told_by_what_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kills: list[int], preempted: bool, failure: str
) -> None:
    monkeypatch.setattr(guarding, "oom_kills", lambda: kills[0])
    found = Guard(os.getpid())
    found.told({"note": str(tmp_path / "n"), "memory": None, "timeout_s": None})
    found.look()
    if preempted:
        found.told({"preempted": True})
    monkeypatch.setattr(guarding, "oom_kills", lambda: kills[1])
    found.bury()
    assert json.loads((tmp_path / "n").read_text())["failure"] == failure
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_a_worker_that_ends_between_two_stages_leaves_no_note(tmp_path: Path) -> None:
    found = Guard(os.getpid())
    found.told({"note": str(tmp_path / "n"), "memory": None, "timeout_s": None})
    found.told({})
    found.look()
    found.bury()
    assert not list(tmp_path.iterdir())


def test_the_guard_ends_a_worker_whose_raylet_is_gone(tmp_path: Path) -> None:
    starts = ["sh", "-c", "sleep 60 & echo $!; read line"]
    with subprocess.Popen(starts, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as raylet:
        assert raylet.stdout is not None
        worker, note = int(raylet.stdout.readline()), tmp_path / "note"
        found = Guard(worker)
        found.told({"note": str(note)})
        found.look()
        assert not note.exists()
        assert guarding.state(worker) in "RSD"
    found.look()
    assert json.loads(note.read_text())["failure"] == "lost"
    assert wait(lambda: guarding.state(worker) in "Z?")


def test_a_killed_process_is_buried_by_its_guard_which_then_ends(tmp_path: Path) -> None:
    """The real processes: worker, guard, and a kill that nobody announces."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from orchestrator.runner.limits import Limits\nfrom orchestrator.spec.resources import Demand\n"
        "limits = Limits(guarded=True)\n"
        "with limits.holding(Demand(), Path(sys.argv[1])):\n"
        "    print(limits._guard.pid, flush=True)\n    time.sleep(600)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "n")], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert wait(lambda: (tmp_path / "n").exists())
    said = json.loads((tmp_path / "n").read_text())
    assert said["failure"] == "lost"
    assert "its process was killed or crashed; it last held" in said["reason"]
    assert wait(lambda: guarding.state(pid) in "?Z"), "no guard outlives its worker"
