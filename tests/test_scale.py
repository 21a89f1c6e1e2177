"""What stands in for stages in benchmarks, and the simulation of many workers against closed forms."""

import json
from pathlib import Path

import pytest
from formula_runner import Silent

from benchmarks.no_op import no_op
from benchmarks.scale import STUDY
from benchmarks.scale_simulation import EVALUATE_S, SPREAD, TRAIN_S, Costs, simulated
from orchestrator.layout import Layout
from orchestrator.plan import Planner
from orchestrator.spec.load import load_spec
from orchestrator.sweep import Options, sweep
from trainables.keys import PathFinder

FREE = Costs(task_ms=0, record_ms=0, commit_ms=0)
MINUTE_S = TRAIN_S + EVALUATE_S


def test_without_costs_the_workers_are_busy_to_the_end() -> None:
    found = simulated(2000, 50, FREE)
    assert found.driver_busy == 0
    assert found.workers_busy > 0.95
    assert found.seconds == pytest.approx(2000 * MINUTE_S / 50, rel=0.05)


def test_a_driver_that_cannot_keep_up_sets_the_pace() -> None:
    """1,000 workers ask for 16.7 tasks a second of a driver that needs 0.2 s for each."""
    costs = Costs(task_ms=190, record_ms=4, commit_ms=2)
    found = simulated(2000, 1000, costs)
    assert found.driver_busy * found.seconds == pytest.approx(2000 * 0.2)
    assert found.seconds == pytest.approx(2000 * 0.2, abs=(1 + SPREAD) * MINUTE_S)
    assert found.workers_busy < 0.4


def test_parts_take_the_load_from_each_driver() -> None:
    costs = Costs(task_ms=50, record_ms=0, commit_ms=0)
    whole, part = simulated(4000, 2000, costs), simulated(400, 200, costs)
    assert part.driver_busy < whole.driver_busy
    assert part.workers_busy > whole.workers_busy


def test_a_stage_that_does_nothing_goes_the_way_of_all_stages_and_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    path, layout = tmp_path / "scale.yaml", Layout(tmp_path / "results")
    path.write_text(STUDY.format(most=0.001).replace("seeds: 10", "seeds: 1"))
    planner = Planner(load_spec(str(path)), lambda _: "fp32")
    options = Options(layout, tmp_path, runner="serial", latency=False, stand_in="benchmarks.no_op:no_op")
    summary = sweep(planner, options, Silent())
    assert summary.ran == len(planner.plan.stages) == 4 * planner.plan.cells == 40
    assert all(record.status == "complete" for record in summary.records.values())
    assert not list(layout.root.glob(".store/artifacts/*"))
    again = sweep(Planner(load_spec(str(path)), lambda _: "fp32"), options, Silent())
    assert (again.ran, again.cached) == (0, 40)


def test_the_text_of_a_key_is_canonical_json(tmp_path: Path) -> None:
    """Keys are made of texts that are put together, which must be what a JSON writer gives."""
    path = tmp_path / "scale.yaml"
    path.write_text(STUDY.format(most=0.001))
    trial = Planner(load_spec(str(path)), lambda _: "fp32").plan.trials[0]
    finder = PathFinder()
    for stage in finder.path(trial.config, 0):
        assert no_op(stage).artifact == b""
        own = json.dumps(stage.own_config(), sort_keys=True, separators=(",", ":"))
        step = next(one for one in finder._steps.values() if one.kind == stage.kind)  # pyright: ignore[reportPrivateUsage]
        assert step.leaves == f'"config":{own}'
