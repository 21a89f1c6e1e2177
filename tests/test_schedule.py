"""The forest is handed out in order, once, and nothing is lost on the way."""

import dataclasses
import random
import sys
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.estimate import Estimator
from orchestrator.failures import RETRIES
from orchestrator.ledger import StageRecord
from orchestrator.runner.retries import Retries
from orchestrator.runner.schedule import TASK_S, Schedule
from orchestrator.runner.task import Task
from orchestrator.spec.resources import Demand, Resources, Retry
from trainables.config import DataConfig, ModelConfig, StqConfig, TrainConfig, TrialConfig
from trainables.keys import PathFinder, Stage


def forest(seeds: int, ratios: Sequence[float], epochs: int = 1) -> list[Stage]:
    finder, found = PathFinder(), dict[str, Stage]()
    data = DataConfig(name="digits", image_size=8, train_size=1437, augment="none")
    model = ModelConfig(name="resnet8", width=16)
    train = TrainConfig(epochs=epochs, precision="fp32")
    for seed in range(seeds):
        for pfr in ratios:
            config = TrialConfig(data=data, model=model, train=train, compress=StqConfig(pfr=pfr, epochs=epochs))
            found |= {stage.key: stage for stage in finder.path(config, seed)}
    return list(found.values())


def record(stage: Stage, status: str = "complete") -> StageRecord:
    return StageRecord(
        key=stage.key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status=status,  # pyright: ignore[reportArgumentType]
        busy_s=0.1, started_at=0, finished_at=0, artifact_sha256="hash of " + stage.key,
    )  # fmt: skip


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32))
def test_any_order_of_completion_runs_every_stage_once_after_its_parent(
    seeds: int, cells: int, workers: int, chance: int
) -> None:
    rng = random.Random(chance)
    stages = forest(seeds, [0.1 * n for n in range(1, cells + 1)])
    schedule = Schedule(stages, {}, Estimator(), workers)
    running: list[Task] = []
    done: list[str] = []
    while not schedule.finished:
        task = schedule.take() if len(running) < workers else None
        if task is not None:
            running.append(task)
            continue
        for stage in running.pop(rng.randrange(len(running))).stages:
            assert stage.parent is None or stage.parent in done
            done.append(stage.key)
            schedule.finish(record(stage))
    assert sorted(done) == sorted(stage.key for stage in stages)


def test_a_task_carries_the_hash_of_each_parent_outside_it() -> None:
    stages = forest(1, [0.4])
    schedule = Schedule(stages, {}, Estimator(), 1)
    first = schedule.take()
    assert first is not None
    assert [stage.kind for stage in first.stages] == ["train"]
    assert first.parent_sha256 == {}
    schedule.finish(record(stages[0]))
    second = schedule.take()
    assert second is not None
    assert [stage.kind for stage in second.stages] == ["compress", "evaluate"]
    assert second.parent_sha256 == {stages[0].key: "hash of " + stages[0].key}


def test_nothing_is_ready_while_the_only_root_runs() -> None:
    schedule = Schedule(forest(1, [0.1, 0.2]), {}, Estimator(), 2)
    assert schedule.take() is not None
    assert schedule.take() is None
    assert not schedule.finished


def test_the_longest_remaining_path_goes_first() -> None:
    short, long = forest(1, [0.4], epochs=1), forest(1, [0.4], epochs=50)
    task = Schedule([*short, *long], {}, Estimator(), 1).take()
    assert task is not None
    assert task.stages[0] == long[0]


def test_short_stages_are_packed_but_no_worker_is_left_without_work() -> None:
    stages = forest(1, [0.01 * n for n in range(1, 61)])
    roots = {stages[0].key: record(stages[0])}
    rest = [stage for stage in stages if stage.parent is not None]
    seconds = {stage.key: Estimator().estimate(stage).seconds for stage in rest}
    schedule = Schedule(rest, roots, Estimator(), 2)
    sizes: list[float] = []
    while (task := schedule.take()) is not None:
        sizes.append(sum(seconds[stage.key] for stage in task.stages))
    assert max(sizes) <= TASK_S
    assert max(sizes) > 2 * min(seconds.values())
    assert sum(sizes) == pytest.approx(sum(seconds.values()))
    assert sizes[-1] <= 2 * max(seconds.values())


def test_a_failed_stage_takes_its_descendants_with_it() -> None:
    stages = forest(1, [0.1, 0.2])
    schedule = Schedule(stages, {}, Estimator(), 1)
    schedule.take()
    closed = schedule.finish(record(stages[0], "failed"))
    assert sorted(closed) == sorted(stage.key for stage in stages[1:])
    assert schedule.finished


def test_a_failure_at_the_root_closes_a_chain_longer_than_python_may_recurse() -> None:
    root = forest(1, [0.4])[0]
    chain = [root]
    for number in range(5 * sys.getrecursionlimit()):
        chain.append(msgspec.structs.replace(root, key=f"round {number}", parent=chain[-1].key))
    schedule = Schedule(chain, {}, Estimator(), 1)
    schedule.take()
    assert schedule.finish(record(root, "failed")) == [stage.key for stage in chain[1:]]
    assert schedule.finished
    assert schedule.open_seconds == pytest.approx(0, abs=1e-6)


def test_what_a_dead_worker_held_is_handed_out_again_as_long_as_the_study_allows() -> None:
    stages, retries = forest(1, [0.4]), Retries()
    schedule = Schedule(stages, {}, Estimator(), 1, retries)
    for attempt in range(1, 1 + RETRIES["lost"]):
        task = schedule.take()
        assert task is not None
        assert task.attempts == {stages[0].key: attempt}
        assert retries.again(stages[0], "lost")
        schedule.resume(stages[0].key)
    assert schedule.take() is not None
    assert not retries.again(stages[0], "lost")


def test_a_worker_that_dies_between_parent_and_child_leaves_the_child_ready() -> None:
    stages = forest(1, [0.4])
    schedule = Schedule(stages, {}, Estimator(), 1)
    schedule.take()
    schedule.finish(record(stages[0]))
    task = schedule.take()
    assert task is not None
    compress, evaluate = task.stages
    schedule.finish(record(compress))
    schedule.give_back([evaluate.key])
    again = schedule.take()
    assert again is not None
    assert again.stages == (evaluate,)


def test_a_stage_that_is_handed_out_again_is_in_a_task_of_another_name() -> None:
    """Its last worker may be known to have ended only when the next one has it already."""
    stages = forest(1, [0.5])[:1]
    schedule = Schedule(stages, {}, Estimator(), workers=1)
    first = schedule.take()
    schedule.give_back([stages[0].key])
    second = schedule.take()
    assert first is not None
    assert second is not None
    assert first.stages == second.stages
    assert first.name != second.name
    assert dataclasses.replace(first, rungs={}).name == first.name


def test_a_stage_that_kills_its_worker_takes_no_other_with_it() -> None:
    """Stages that were only packed with it are handed out again without it, and none of them fails."""
    stages = forest(1, [0.01 * n for n in range(1, 31)])
    roots = {stages[0].key: record(stages[0])}
    rest = [stage for stage in stages if stage.parent is not None]
    retries = Retries()
    schedule = Schedule(rest, roots, Estimator(), 2, retries)
    deadly = rest[0]
    attempts = 0
    done: set[str] = set()
    while (task := schedule.take()) is not None:
        keys = [stage.key for stage in task.stages]
        if deadly.key in keys:
            attempts += 1
            assert attempts == 1 or keys[0] == deadly.key
            schedule.give_back([key for key in keys if key != deadly.key])
            if retries.again(deadly, "lost"):
                schedule.resume(deadly.key)
            else:
                schedule.finish(record(deadly, "failed"))
            continue
        for stage in task.stages:
            done.add(stage.key)
            schedule.finish(record(stage))
    assert attempts == 1 + RETRIES["lost"]
    below = {stage.key for stage in rest if stage.parent == deadly.key}
    assert done == {stage.key for stage in rest} - {deadly.key} - below
    assert schedule.finished


def test_a_task_holds_only_stages_that_are_given_the_same() -> None:
    own = Resources(Demand(cpus=1), {"evaluate": Demand(cpus=1, memory=2**30)})
    stages = forest(2, [0.1, 0.2])
    schedule = Schedule(stages, {}, Estimator(), 1, Retries(Retry(), own))
    kinds: list[set[str]] = []
    while (task := schedule.take()) is not None:
        kinds.append({stage.kind for stage in task.stages})
        assert len({task.demands[stage.key].place for stage in task.stages}) == 1
        for stage in task.stages:
            schedule.finish(record(stage))
    assert schedule.finished
    assert {"evaluate"} in kinds
    assert not any("evaluate" in some and len(some) > 1 for some in kinds)


def test_what_is_left_is_reckoned_at_the_pace_of_its_own_kind() -> None:
    stages = forest(1, [0.1, 0.2, 0.3])
    schedule = Schedule(stages, {}, Estimator(), 1)
    expected = {stage.key: Estimator().estimate(stage).seconds for stage in stages}
    assert schedule.open_seconds == pytest.approx(sum(expected.values()))
    train, compress = stages[0], stages[1]
    schedule.take()
    schedule.finish(msgspec.structs.replace(record(train), busy_s=7 * expected[train.key]))
    rest = sum(expected.values()) - expected[train.key]
    assert schedule.open_seconds == pytest.approx(7 * rest), "nothing else is known yet"
    schedule.take()
    schedule.finish(msgspec.structs.replace(record(compress), busy_s=2 * expected[compress.key]))
    others = [stage for stage in stages if stage.kind == "compress" and stage is not compress]
    evaluations = [stage for stage in stages if stage.kind == "evaluate"]
    overall = (7 * expected[train.key] + 2 * expected[compress.key]) / (expected[train.key] + expected[compress.key])
    left = 2 * sum(expected[s.key] for s in others) + overall * sum(expected[s.key] for s in evaluations)
    assert schedule.open_seconds == pytest.approx(left)
