"""Ray Jobs on a real head with its dashboard, as a user's cluster has it: token, job server, code that travels."""

import signal
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, Command
from ray_head import Head, ray_head
from waiting import finished_stages, until

pytestmark = pytest.mark.ray
ONE_CELL = TINY.replace("[0, 0.5]", "[0.5]").replace("[0.5, 0.7]", "[0.5]").replace("seeds: 2", "seeds: 1")
LONG = TINY.replace("seeds: 2", "seeds: 8").replace("study: tiny", "study: long")


@pytest.fixture(scope="module")
def head() -> Generator[Head]:
    with ray_head() as head:
        yield head


@pytest.fixture
def there(head: Head, tmp_path: Path) -> Command:
    return Command(tmp_path, {**head.environment, "OMP_NUM_THREADS": "1"})


def submit(head: Head, *words: object) -> tuple[object, ...]:
    return ("submit", *words, "--to", "ray-job", "--address", head.dashboard)


def test_a_job_is_followed_to_its_end_and_gives_what_this_machine_gives(
    head: Head, there: Command, deterministic: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    study = there.study(ONE_CELL)
    told = there(*submit(head, study))
    assert "tiny finished" in told
    assert "-1 sent to" in told
    trials = there.trials()
    there("sweep", study, "--runner", "serial", "--results", "results-here")
    here = pd.read_parquet(there.folder / "results-here" / "tiny")
    pd.testing.assert_frame_equal(deterministic(trials), deterministic(here))


def test_the_exit_code_is_that_of_the_sweep(head: Head, there: Command) -> None:
    told = there(*submit(head, there.study(ONE_CELL), "--set", "data={name: mnist}"), expect=2)
    assert "--download" in told  # what the sweep itself says where data are missing


def test_a_job_that_runs_is_followed_and_left_and_stopped_and_goes_on(head: Head, there: Command) -> None:
    study = there.study(LONG)
    assert "The same command follows it" in there(*submit(head, study, "--no-follow"))
    follower = there.start(*submit(head, study))
    assert follower.stdout is not None
    job = follower.stdout.readline().split()[1]
    follower.send_signal(signal.SIGINT)
    told, _ = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert f"no longer followed; job {job} goes on" in told
    assert f"ray job stop --address {head.dashboard} {job}" in told
    assert f"with another plan by job {job}" in there(*submit(head, study, "--set", "train.epochs=3"), expect=2)
    follower = there.start(*submit(head, study))
    until(lambda: finished_stages(there.folder / "results" / "long") > 0)
    stop(head, job)
    told, _ = follower.communicate(timeout=120)
    assert follower.returncode == 3, told
    assert "The same command goes on from there" in told
    before = len(there.stages("long"))
    assert before > 0
    assert "-2 sent to" in there(*submit(head, study))
    stages = there.stages("long")
    assert stages["key"].is_unique
    assert stages["run"].nunique() == 2
    assert (stages["status"] == "complete").all()


def stop(head: Head, job: str) -> None:
    """What `ray job stop` asks of the head."""
    token = {"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/{job}/stop", method="POST", headers=token)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
