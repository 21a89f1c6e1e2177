"""What Tune is left with of tasks and records that it would otherwise keep to the end of a run."""

import copy
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger import StageRecord
from orchestrator.runner.messages import Ended, Over, Reported, Take, Wait
from orchestrator.runner.task import Task, Workplace
from orchestrator.spec.resources import Demand
from trainables.config import DataConfig, ModelConfig, TrainConfig, TrialConfig, resolve
from trainables.keys import PathFinder

pytestmark = pytest.mark.ray


@dataclass
class Driver:
    """The other end of the wire."""

    answers: list[Any]
    heard: list[Any] = field(default_factory=list[Any])

    def send(self, word: Any) -> None:
        self.heard.append(pickle.loads(pickle.dumps(word)))

    def recv(self) -> Any:
        return self.answers.pop(0)


@pytest.fixture
def task() -> Task:
    config = TrialConfig(data=DataConfig(name="digits"), model=ModelConfig(name="resnet8"), train=TrainConfig())
    stages = PathFinder().path(resolve(config, "fp32"), 0)
    demands = {stage.key: Demand(1, 0.0) for stage in stages}
    return Task(stages, {}, dict.fromkeys(demands, 1), demands)


def place(folder: Path) -> Workplace:
    return Workplace(folder, folder / "drain", folder, "run", folder / "notes")


def test_tune_keeps_neither_tasks_nor_records(tmp_path: Path, task: Task) -> None:
    from orchestrator.runner.forest import ForestSearcher

    driver = Driver([task, Wait()])
    searcher = ForestSearcher(driver, place(tmp_path), {}, tasks=1)  # pyright: ignore[reportArgumentType]
    config = searcher.suggest("trial")
    kept = copy.deepcopy(config)["parcel"]
    assert kept is config["parcel"]
    assert pickle.loads(pickle.dumps(kept)).task == task
    assert searcher.suggest("another") is None, "one task is what may be with the workers"
    first, last = (
        StageRecord(key, "train", None, 0, "complete", busy_s=1.0, started_at=1.0, finished_at=2.0) for key in "ab"
    )
    report = {"records": [first]}
    searcher.on_trial_result("trial", report)
    assert report == {"records": []}
    searcher.on_trial_complete("trial", {"records": [last]})
    assert kept.task is None
    assert kept.demand == task.demand
    assert driver.heard == [Take(), Reported([first]), Reported([last]), Ended(task.name, None)]


def test_a_worker_that_died_is_told_and_the_end_leaves_tunes_loop(tmp_path: Path, task: Task) -> None:
    from orchestrator.runner.forest import ForestSearcher, _AllDone  # pyright: ignore[reportPrivateUsage]

    driver = Driver([task, Over()])
    searcher = ForestSearcher(driver, place(tmp_path), {}, tasks=1)  # pyright: ignore[reportArgumentType]
    searcher.suggest("trial")
    with pytest.raises(_AllDone):
        searcher.on_trial_complete("trial", error=True)
    assert driver.heard[-1] == Ended(task.name, "its process was killed or crashed")
