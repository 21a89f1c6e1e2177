"""A real Slurm: a job that is preempted, one that cannot start, one on two machines."""

from collections.abc import Callable, Generator
from pathlib import Path

import pandas as pd
import pytest
import slurm_cluster
from conftest import TINY, Command
from slurm_cluster import Slurm
from waiting import finished_stages, until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(slurm_cluster.unavailable() != "", reason=f"no Slurm: {slurm_cluster.unavailable()}"),
]
LONG = TINY.replace("seeds: 2", "seeds: 8")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Generator[Slurm]:
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture
def there(slurm: Slurm, tmp_path: Path) -> Command:
    return Command(tmp_path, {**slurm.environment, "OMP_NUM_THREADS": "1"})


def job_of(told: str) -> str:
    return next(line for line in told.splitlines() if line.startswith("job ")).split()[1]


def test_a_job_that_is_preempted_drains_is_queued_again_and_goes_on(slurm: Slurm, there: Command) -> None:
    study = there.study(LONG)
    words = ("submit", study, "--to", "slurm", "--cpus", 1, "--time", 30)
    told = there(*words, "--no-follow")
    assert "The same command follows it" in told
    job = job_of(told)
    until(lambda: finished_stages(there.folder / "results" / "tiny") > 0)
    slurm.ask("scancel", "--signal=USR1", "--batch", job)
    told = there(*words)
    assert f"job {job} is this study already; it is followed, nothing is sent" in told
    assert "drained in time; the job is queued again" in told
    assert "tiny finished" in told
    assert "Restarts=1 " in slurm.ask("scontrol", "show", "job", "-o", job)
    stages = there.stages()
    assert stages["key"].is_unique
    assert stages["run"].nunique() == 2
    assert (stages["status"] == "complete").all()


def test_the_exit_code_is_that_of_the_sweep(slurm: Slurm, there: Command) -> None:
    told = there("submit", there.study(), "--to", "slurm", "--cpus", 1, "--set", "data={name: mnist}", expect=2)
    assert "--download" in told
    assert "ExitCode=2:0" in slurm.ask("scontrol", "show", "job", "-o", job_of(told))


def test_what_slurm_refuses_is_told_in_its_words(there: Command) -> None:
    told = there("submit", there.study(), "--to", "slurm", "--partition", "nosuch", expect=2)
    assert "invalid partition specified: nosuch" in told
    assert "Traceback" not in told


def test_a_job_that_is_cancelled_can_be_sent_again(slurm: Slurm, there: Command) -> None:
    study = there.study(LONG)
    words = ("submit", study, "--to", "slurm", "--cpus", 1, "--sbatch", "hold")
    job = job_of(there(*words, "--no-follow"))
    assert "with another plan by job" in there(*words, "--set", "train.epochs=9", expect=2)
    follower = there.start(*words)
    assert follower.stdout is not None
    assert f"job {job} is this study already" in follower.stdout.readline()
    slurm.ask("scancel", job)
    told, _ = follower.communicate(timeout=120)
    assert follower.returncode == 3, told
    assert f"job {job} ended as CANCELLED; what was finished is kept" in told


@pytest.mark.chaos
def test_two_machines_are_one_ray(
    slurm: Slurm, there: Command, deterministic: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    study = there.study()
    told = there("submit", study, "--to", "slurm", "--nodes", 2)
    assert "tiny finished" in told
    assert "ray::" not in told  # what Ray has to say has a log of its own
    assert set(there.stages()["host"]) == {"n1", "n2"}
    there("sweep", study, "--runner", "serial", "--results", "results-here")
    here = pd.read_parquet(there.folder / "results-here" / "tiny")
    pd.testing.assert_frame_equal(deterministic(there.trials()), deterministic(here))
