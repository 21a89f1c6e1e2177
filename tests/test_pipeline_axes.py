"""Axes over the leaves of a pipeline's steps: the same cells as pipelines written out, columns, conditions, faults."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.compaction import trial_row, trial_table
from orchestrator.errors import PlanError, SpecError
from orchestrator.fronts import varied
from orchestrator.ledger import StageRecord
from orchestrator.plan import Plan, plan
from orchestrator.spec.load import load_spec
from orchestrator.spec.model import StudySpec
from trainables.method_config import FinetuneConfig

PIPELINE = """study: pipeline
base:
  data: {name: digits, train_size: 300}
  model: {name: resnet8, width: 4}
  train: {epochs: 2, batch_size: 32, precision: fp32}
  compress:
    method: combine
    steps:
      1_group_sparsity: {method: group_sparsity, epochs: 1, penalty: 0.02}
      2_stq: {method: stq, epochs: 1, pfr: 0.1, scope: all}
"""
AXES = """axes:
  compress.steps.1_group_sparsity.penalty: [0.01, 0.02]
  compress.steps.2_stq.pfr: {range: [0, 0.4, 0.2]}
"""


def planned(spec: StudySpec) -> Plan:
    return plan(spec, lambda config: "fp32")


def study(folder: Path, *parts: str) -> StudySpec:
    path = folder / "pipeline.yaml"
    path.write_text("".join(parts))
    return load_spec(str(path))


def test_axes_over_leaves_of_steps_are_the_pipelines_written_out(tmp_path: Path) -> None:
    written = "".join(
        "    - {method: combine, steps: {1_group_sparsity: {method: group_sparsity, epochs: 1, "
        f"penalty: {penalty}}}, 2_stq: {{method: stq, epochs: 1, pfr: {pfr}, scope: all}}}}}}\n"
        for penalty in (0.01, 0.02)
        for pfr in (0, 0.2, 0.4)
    )
    inside = planned(study(tmp_path, PIPELINE, AXES))
    whole = planned(study(tmp_path, PIPELINE, "axes:\n  compress:\n", written))
    assert inside.cells == 6
    assert [trial.id for trial in inside.trials] == [trial.id for trial in whole.trials]
    assert list(inside.stages) == list(whole.stages)
    plain = "{1_group_sparsity: {method: group_sparsity, epochs: 1}, 2_stq: {method: stq, epochs: 1, scope: all}}"
    both = planned(study(tmp_path, PIPELINE, AXES, f"  compress.steps: [{plain}]\n"))
    assert [trial.id for trial in both.trials] == [trial.id for trial in whole.trials]
    steps = written.replace("{method: combine, steps: ", "").replace("}}}", "}}")
    listed = planned(study(tmp_path, PIPELINE, "axes:\n  compress.steps:\n", steps))
    assert [trial.id for trial in listed.trials] == [trial.id for trial in whole.trials]


def test_each_leaf_of_a_step_is_a_column(tmp_path: Path) -> None:
    found = planned(study(tmp_path, PIPELINE, AXES))
    rows = trial_table(found, {}).to_pandas()
    cells = rows[rows["role"] == "cell"]
    assert varied(rows) == ["compress.steps.1_group_sparsity.penalty", "compress.steps.2_stq.pfr"]
    assert list(cells["compress.steps.2_stq.pfr"]) == [0, 0.2, 0.4] * 2
    assert set(cells["compress.steps"]) == {"1_group_sparsity,2_stq"}
    assert set(cells["compress.steps.2_stq.method"]) == {"stq"}
    assert rows.loc[rows["role"] != "cell", "compress.steps.2_stq.pfr"].isna().all()


def test_expressions_and_searches_read_leaves_of_steps(tmp_path: Path) -> None:
    both = "compress.steps.2_stq.pfr > 0.3 and compress.steps.1_group_sparsity.penalty == 0.02"
    assert planned(study(tmp_path, PIPELINE, AXES, f'exclude: ["{both}"]\n')).cells == 5
    default = "compress.steps.2_stq.temperature == 4 and compress.method == 'combine'"  # neither in base nor an axis
    with pytest.raises(PlanError, match="6 excluded by"):
        planned(study(tmp_path, PIPELINE, AXES, f'exclude: ["{default}"]\n'))
    several = (
        "axes:\n  compress:\n    - {method: stq, epochs: 1}\n    - {method: combine, steps: "
        "{1_expand: {method: expand, epochs: 1}, 2_stq: {method: stq, epochs: 1}}}\n"
        "  compress.steps.2_stq.pfr: [0.1, 0.2]\n"
    )
    when = "when: {compress.steps.2_stq.pfr: \"compress.method == 'combine'\"}\n"
    assert planned(study(tmp_path, PIPELINE, several, when)).cells == 3
    drawn = "axes:\n  compress.steps.2_stq.pfr: {uniform: [0, 0.4]}\nsearch: {name: random, trials: 5}\n"
    pfrs = trial_table(planned(study(tmp_path, PIPELINE, drawn)), {}).to_pandas()["compress.steps.2_stq.pfr"].dropna()
    assert len(set(pfrs)) == 5
    assert pfrs.between(0, 0.4).all()


WRONG_AXES: dict[str, tuple[str, str]] = {
    "a value": ("compress.steps.2_stq.pfr: [0.1, 2]", r"steps\.2_stq\.pfr\[1\]: 2 is not a number in \[0, 1\)"),
    "no such step": ("compress.steps.3_stq.pfr: [0.1]", "3_stq is no step of this study's pipelines; did you mean '2"),
    "another method's": (
        "compress.steps.2_stq.penalty: [0.1]", "belongs to method group_sparsity and low_rank, not to stq",
    ),
    "no leaf": ("compress.steps.2_stq.prf: [0.1]", "unknown key; did you mean 'pfr'"),
    "a method without it": (
        "compress.steps.2_stq.method: [stq, binary]\n  compress.steps.2_stq.pfr: [0.1]",
        r"axes.*: steps\.2_stq\.pfr: is no leaf of binary",
    ),
    "a pipeline in it": ("compress.steps.2_stq.method: [combine]", "'combine' is not known"),
    "set by an axis too": (
        "compress.steps: [{1_a: {method: expand}, 2_stq: {method: stq, pfr: 0.2}}]\n  compress.steps.2_stq.pfr: [0.1]",
        "is varied, and set in the axis compress.steps as well; keep one",
    ),
    "not in every pipeline": (
        "compress: [{method: stq}, {method: combine, steps: {1_a: {method: expand}, 2_stq: {method: stq}}}]\n"
        "  compress.steps.2_stq.pfr: [0.1]",
        r"axes\.compress\.steps\.2_stq\.pfr: belongs to method combine, not to stq .*; vary it only where it applies, "
        r"as in when: \{compress\.steps\.2_stq\.pfr: \"compress\.method == 'combine'\"\}",
    ),
    "no pipeline": ("compress.steps.2_stq.pfr: [0.1]\nno", "no compress of this study has steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_AXES)
def test_a_wrong_axis_over_a_step_is_told_with_what_is_valid(name: str, tmp_path: Path) -> None:
    axes, told = WRONG_AXES[name]
    head = PIPELINE
    if axes.endswith("\nno"):
        head, axes = PIPELINE[: PIPELINE.index("  compress:")], axes.removesuffix("\nno")
    with pytest.raises(SpecError, match=told):
        study(tmp_path, head, "axes:\n  ", axes, "\n")


def test_all_faults_of_the_steps_are_told_with_their_lines(tmp_path: Path) -> None:
    wrong = PIPELINE.replace("penalty: 0.02", "penalty: -1, foo: 3").replace("method: stq,", "method: stqq,")
    with pytest.raises(SpecError) as caught:
        study(tmp_path, wrong)
    lines = [(fault.line, fault.key.rpartition(".")[2]) for fault in caught.value.faults]
    assert lines == [(9, "penalty"), (9, "foo"), (10, "method")]


def test_an_axis_over_a_leaf_of_a_step_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"compress\.steps\.2_stq\.temperature: no effect in any cell"):
        planned(study(tmp_path, PIPELINE, "axes:\n  compress.steps.2_stq.temperature: [1, 2]\n"))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("[{method: expand}, {method: stq}]", r"\.steps: \[.*\] is a list; a mapping is wanted, as \{1_expand: "),
        ("[]", r"\.steps: \[\] is a list"),
        ("3", r"\.steps: 3 is a number; a mapping is wanted"),
        ('[\'1_a={"method":"stq"}\', \'2_b={"method":"stq"}\']', r"is a list; a mapping is wanted"),
        ("{1_a: null, 2_b: {method: stq}}", r"\.steps\.1_a: null must be a mapping of keys to values"),
        ("{1_a: {method: group_sparsity, early_groups: 9223372036854775808}, 2_b: {method: stq}}", "2\\^63 - 1"),
    ],
)
def test_what_are_no_steps_is_told_wherever_they_stand(steps: str, told: str, tmp_path: Path) -> None:
    head = PIPELINE[: PIPELINE.index("  compress:")]
    with pytest.raises(SpecError, match=told):
        study(tmp_path, head, f"  compress: {{method: combine, steps: {steps}}}\n")
    with pytest.raises(SpecError, match=told):
        study(tmp_path, head, f"axes:\n  compress: [{{method: combine, steps: {steps}}}]\n")
    with pytest.raises(SpecError, match=told.replace("steps", r"steps\[0\]", 1)):
        study(tmp_path, head, f"  compress: {{method: combine}}\naxes:\n  compress.steps: [{steps}]\n")


def test_what_the_steps_removed_together_is_counted_once(tmp_path: Path) -> None:
    """A half, then a fifth of what was left."""
    found = planned(study(tmp_path, PIPELINE))
    trial = found.trials[0]
    told: list[dict[str, float]] = [{}, {"pfr_achieved": 0.5}, {"pfr_achieved": 0.2}, {"accuracy": 0.9}]
    records = {
        key: StageRecord(
            key=key, kind=kind, parent=None, seed=0, status="complete", failure=None, error=None, busy_s=1.0,
            started_at=1.0, finished_at=2.0, metrics=metrics, config={}, artifact_sha256="", machine="", host="",
            run="",
        )
        for key, kind, metrics in zip(trial.path, trial.kinds, told, strict=True)
    }  # fmt: skip
    assert trial_row(trial, records, frozenset())["pfr_achieved"] == pytest.approx(0.6)
    records[trial.path[2]].metrics.clear()  # pyright: ignore[reportAttributeAccessIssue]
    assert trial_row(trial, records, frozenset())["pfr_achieved"] == 0.5


def test_its_baselines_train_for_the_passes_over_all_images(tmp_path: Path) -> None:
    last = "      2_ptq: {method: ptq_group, epochs: 9, images: 64}\n"
    text = PIPELINE.replace("      2_stq: {method: stq, epochs: 1, pfr: 0.1, scope: all}\n", last)

    def finetuned(text: str) -> tuple[object, Sequence[str]]:
        trials = planned(study(tmp_path, text)).trials
        found = next(trial for trial in trials if trial.baseline == "dense_finetuned")
        return found.config.compress, found.path

    assert finetuned(text)[0] == FinetuneConfig(epochs=1, lr=0.05)
    alone = text[: text.index("  compress:")] + "  compress: {method: ptq_group, images: 64}\n"
    compress, path = finetuned(alone)
    dense = next(trial for trial in planned(study(tmp_path, alone)).trials if trial.baseline == "dense")
    assert compress is None, "few images are no training to be compared with"
    assert path == dense.path
