"""What a study asks for, counted by hand."""

import json
from pathlib import Path

import pytest
from conftest import TINY, Command

from orchestrator.compaction import trial_table
from orchestrator.errors import PlanError
from orchestrator.plan import Plan, plan
from orchestrator.spec.load import load_spec, shipped_studies


def planned(path: Path, *overrides: str) -> Plan:
    return plan(load_spec(str(path), overrides), lambda _: "fp32")


def kinds(whole: Plan) -> dict[str, int]:
    found: dict[str, int] = {}
    for stage in whole.stages.values():
        found[stage.kind] = found.get(stage.kind, 0) + 1
    return found


def test_the_pfr_grid_trains_three_dense_networks_not_fifty_one() -> None:
    whole = planned(shipped_studies() / "pfr_grid.yaml")
    assert whole.cells == 7 * 2 * 3
    assert len(whole.trials) - whole.cells == 3 * 3
    # Per seed: finetuned, binary (which is PFR 0 at both thresholds), and 6 ratios x 2 thresholds.
    assert kinds(whole) == {"train": 3, "compress": 3 * (1 + 1 + 6 * 2), "evaluate": 3 * (1 + 1 + 1 + 6 * 2)}
    unshared = whole.unshared()
    assert unshared.total() == 3 * 51 - 3, "every trial has three stages but the three of role dense, which have two"


def test_parents_come_before_children(command: Command) -> None:
    whole = planned(command.study())
    place = {key: position for position, key in enumerate(whole.stages)}
    assert all(stage.parent is None or place[stage.parent] < place[stage.key] for stage in whole.stages.values())


def test_cells_come_first_and_ids_are_unique(command: Command) -> None:
    whole = planned(command.study())
    roles = [trial.role for trial in whole.trials]
    assert roles == ["cell"] * 8 + ["baseline"] * 6
    assert len({trial.id for trial in whole.trials}) == 14


def test_inert_leaves_tell_rows_apart_though_they_share_every_stage(command: Command) -> None:
    cells = [trial for trial in planned(command.study()).trials if not trial.baseline and trial.seed == 0]
    unpruned = [trial for trial in cells if trial.config.compress and trial.config.compress.model_dump()["pfr"] == 0]
    assert len(unpruned) == 2
    assert unpruned[0].path == unpruned[1].path
    assert unpruned[0].id != unpruned[1].id


def test_a_leaf_without_effect_is_no_value_unless_its_axis_tells_rows_apart(command: Command) -> None:
    text = TINY.replace("compress.threshold: [0.5, 0.7]", "compress.mode: [target, threshold]").replace(
        "seeds: 2", "when: {compress.pfr: compress.mode == 'target'}\nseeds: 1"
    )
    rows = trial_table(planned(command.study(text)), {}).to_pylist()
    cells = [row for row in rows if row["role"] == "cell"]
    shown = {(row["compress.mode"], row["compress.pfr"], row.get("compress.max_zero_share")) for row in cells}
    assert shown == {("target", 0.0, None), ("target", 0.5, None), ("threshold", None, 0.6)}
    both = trial_table(planned(command.study()), {}).to_pylist()
    unpruned = [row for row in both if row["role"] == "cell" and row["compress.pfr"] == 0 and row["seed"] == 0]
    assert sorted(row["compress.threshold"] for row in unpruned) == [0.5, 0.7]
    assert all(row.get("compress.scope") is None for row in unpruned)


def test_cells_that_differ_in_leaves_without_effect_alone_are_one(command: Command) -> None:
    sections = [{"method": "stq", "mode": "threshold", "epochs": 2}, {"method": "stq", "mode": "threshold", "epochs": 2,
                "budget": "global"}, {"method": "binary", "epochs": 2}]  # fmt: skip
    text = TINY[: TINY.index("axes:")] + f"axes: {{compress: {json.dumps(sections)}}}\nseeds: 1\n"
    whole = planned(command.study(text))
    assert (whole.cells, whole.collapsed) == (2, 1)


def test_baselines_follow_the_schedule_of_the_cells_they_serve(command: Command) -> None:
    text = TINY.replace("compress.threshold: [0.5, 0.7]", "compress.epochs: [1, 2]")
    whole = planned(command.study(text), "seeds=1")
    names = [trial.baseline for trial in whole.trials if trial.baseline]
    assert sorted(names) == ["binary", "binary", "dense", "dense_finetuned", "dense_finetuned"]


def test_the_dense_row_is_compared_with_no_schedule_of_many(command: Command) -> None:
    text = TINY.replace("compress.threshold: [0.5, 0.7]", "compress.epochs: [1, 2]")
    rows = {trial.baseline: trial.baselines for trial in planned(command.study(text), "seeds=1").trials}
    assert set(rows["dense"]) == {"dense"}
    assert set(rows["dense_finetuned"]) == {"dense", "dense_finetuned"}
    assert set(rows["binary"]) == set(rows[None]) == {"dense", "dense_finetuned", "binary"}


def test_a_study_of_another_method_has_no_binary_baseline(command: Command) -> None:
    text = TINY.replace("method: stq", "method: l1_prune").replace("  compress.threshold: [0.5, 0.7]\n", "")
    names = {trial.baseline for trial in planned(command.study(text)).trials}
    assert names == {None, "dense", "dense_finetuned"}


def test_a_study_without_compression_is_a_study_of_dense_networks(command: Command) -> None:
    text = "study: plain\nbase:\n  data: {name: digits}\n  model: {name: resnet8}\naxes:\n  model.width: [4, 8]\n"
    whole = planned(command.study(text))
    assert kinds(whole) == {"train": 2, "evaluate": 2}
    assert {trial.baseline for trial in whole.trials} == {None, "dense"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"score: zero_share": "score: mean_abs"}, "compress.threshold"),
        ({"pfr: 0.5": "pfr: 0", "  compress.pfr: [0, 0.5]\n": ""}, "compress.threshold"),
    ],
)
def test_an_axis_that_acts_nowhere_is_an_error(command: Command, change: dict[str, str], path: str) -> None:
    text = TINY.replace("pfr: 0.5,", "pfr: 0.5, score: zero_share,")
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(PlanError, match=f"{path}: no effect in any cell"):
        planned(command.study(text))


def test_a_grid_of_which_nothing_is_left_is_an_error(command: Command) -> None:
    text = TINY + 'exclude: ["compress.pfr >= 0"]\n'
    with pytest.raises(PlanError, match=r"no cell is left: 8 excluded by `compress.pfr >= 0`"):
        planned(command.study(text))


def test_the_precision_that_was_found_is_part_of_the_key(command: Command) -> None:
    spec = load_spec(str(command.study()))
    assert plan(spec, lambda _: "fp32").digest != plan(spec, lambda _: "bf16").digest
    fixed = load_spec(str(command.study()), ["train.precision=fp32"])
    assert plan(fixed, lambda _: "bf16").digest == plan(spec, lambda _: "fp32").digest


def test_a_gpu_study_has_other_keys_than_a_cpu_study(command: Command) -> None:
    path = command.study()
    assert not set(planned(path).stages) & set(planned(path, "resources.gpus=1").stages)


def test_every_shipped_study_can_be_planned_and_asks_a_question() -> None:
    paths = sorted(shipped_studies().glob("*.yaml"))
    assert {path.stem for path in paths} >= {
        "smoke", "pfr_grid", "threshold_grid", "stq_ablation", "fashion_mnist_pfr", "fashion_mnist_width",
        "fashion_mnist_methods",
        "cifar10_resnet20", "cifar10_resnet18",
    }  # fmt: skip
    for path in paths:
        whole = planned(path)
        assert whole.spec.question.endswith("?"), path
        assert whole.spec.study == path.stem


def test_the_same_study_gives_the_same_plan_in_any_order_of_its_axes(command: Command) -> None:
    lines = "  compress.pfr: [0, 0.5]\n  compress.threshold: [0.5, 0.7]\n"
    turned = "  compress.threshold: [0.7, 0.5]\n  compress.pfr: [0.5, 0]\n"
    assert planned(command.study()).digest == planned(command.study(TINY.replace(lines, turned), "turned.yaml")).digest
