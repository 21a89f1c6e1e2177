"""A study in parts: every stage in one of them, the same parts everywhere, and one result."""

import errno
from collections import Counter
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command
from formula_runner import FormulaSweep, smooth
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis.tables import COLUMNS, is_config_column
from orchestrator.cli import main
from orchestrator.errors import RunError, StoreError
from orchestrator.layout import Layout
from orchestrator.ledger import replay
from orchestrator.locks import study_lock
from orchestrator.merge import merge
from orchestrator.plan import Plan
from orchestrator.shards import Shard
from trainables.keys import Stage

STUDY = """\
study: parts
base:
  data: {name: digits, train_size: 300}
  model: {name: resnet8, width: 4}
  train: {epochs: 1}
  compress: {method: stq, epochs: 1}
axes:
  train.lr: [0.05, 0.1]
  compress.pfr: [0, 0.2, 0.4]
seeds: 3
objectives: {val_accuracy: max, compression: max}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> FormulaSweep:
    return FormulaSweep(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return FormulaSweep(tmp_path_factory.mktemp("plan")).planner(STUDY).plan


def parts(plan: Plan, of: int) -> list[Plan]:
    return [Shard(number, of).part(plan) for number in range(1, of + 1)]


def table(folder: Path) -> pd.DataFrame:
    """The deterministic columns, by trial."""
    df = pd.read_parquet(folder / "parts")
    kept = [name for name in df if is_config_column(str(name)) or COLUMNS[str(name)].deterministic]
    return df[kept].set_index("trial_id").sort_index()


@settings(deadline=None, max_examples=25)
@given(of=st.integers(1, 40))
def test_every_stage_and_every_trial_is_of_one_part(whole: Plan, of: int) -> None:
    found = parts(whole, of)
    stages = Counter(key for part in found for key in part.stages)
    assert stages == Counter(whole.stages.keys())
    assert Counter(t.id for part in found for t in part.trials) == Counter(t.id for t in whole.trials)
    for part in found:
        assert all(key in part.stages for trial in part.trials for key in trial.path)
        assert all(stage.parent is None or stage.parent in part.stages for stage in part.stages.values())


def test_parts_have_about_the_same_to_do(whole: Plan) -> None:
    """Six dense networks, each with as much below it, of which each of three parts has two."""
    assert {sum(stage.kind == "train" for stage in part.stages.values()) for part in parts(whole, 3)} == {2}


def test_parts_do_not_depend_on_the_order_of_a_study(whole: Plan, sweep: FormulaSweep) -> None:
    other = STUDY.replace("[0.05, 0.1]", "[0.1, 0.05]").replace("[0, 0.2, 0.4]", "[0.4, 0, 0.2]")
    assert other != STUDY
    turned = sweep.planner(other).plan
    for of in (2, 4):
        assert [set(part.stages) for part in parts(turned, of)] == [set(part.stages) for part in parts(whole, of)]


@pytest.mark.parametrize("order", list(permutations((1, 2, 3)))[::2])
def test_parts_in_any_order_leave_the_table_of_the_whole(sweep: FormulaSweep, order: tuple[int, ...]) -> None:
    _, once = sweep(STUDY, smooth, root="whole")
    ran: list[Stage] = []
    for number in order:
        summary, stages = sweep(STUDY, smooth, shard=Shard(number, 3))
        assert summary is not None
        assert len(stages) > 0
        ran += stages
    assert Counter(stage.key for stage in ran) == Counter(stage.key for stage in once)
    pd.testing.assert_frame_equal(table(sweep.folder / "results"), table(sweep.folder / "whole"))


def test_a_part_leaves_rows_of_all_and_numbers_of_what_is_done(sweep: FormulaSweep, whole: Plan) -> None:
    sweep(STUDY, smooth, shard=Shard(1, 3))
    first = table(sweep.folder / "results")
    own = {trial.id for trial in Shard(1, 3).part(whole).trials}
    assert set(first.index) == {trial.id for trial in whole.trials}
    assert set(first.index[first["status"] == "complete"]) == own
    sweep(STUDY, smooth, shard=Shard(2, 3))
    assert table(sweep.folder / "results")["status"].notna().sum() > len(own)


def test_parts_on_roots_of_their_own_are_merged_to_the_table_of_the_whole(sweep: FormulaSweep) -> None:
    _, once = sweep(STUDY, smooth, root="whole")
    ran: list[Stage] = []
    for number in (2, 1):
        ran += sweep(STUDY, smooth, shard=Shard(number, 2), root=f"root{number}")[1]
    target, others = Layout(sweep.folder / "all"), tuple(Layout(sweep.folder / f"root{n}") for n in (1, 2))
    found = merge(target, others)
    assert (found.ledgers, found.outputs, found.absent) == (2, len(once), ())
    assert Counter(stage.key for stage in ran) == Counter(stage.key for stage in once)
    summary, again = sweep(STUDY, smooth, root="all")
    assert summary is not None
    assert (again, summary.cached) == ([], len(once))
    pd.testing.assert_frame_equal(table(sweep.folder / "all"), table(sweep.folder / "whole"))
    second = merge(target, others)
    assert (second.ledgers, second.outputs, second.output_bytes) == (0, 0, 0)


def test_a_merge_takes_no_output_that_is_not_as_its_record_says(sweep: FormulaSweep) -> None:
    _, ran = sweep(STUDY, smooth, root="one")
    one, target = Layout(sweep.folder / "one"), Layout(sweep.folder / "all")
    one.artifacts.path(ran[0].key).write_bytes(b"something else")
    found = merge(target, (one,))
    assert found.absent == (ran[0].key,)
    assert not target.artifacts.has(ran[0].key)
    assert len(found.warnings) == 0
    assert found.outputs == len(ran) - 1


def test_a_merge_goes_on_with_a_ledger_that_has_grown(sweep: FormulaSweep) -> None:
    sweep(STUDY, smooth, root="one")
    one, target = Layout(sweep.folder / "one"), Layout(sweep.folder / "all")
    path = next(one.ledger.glob("*.jsonl"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    merge(target, (one,))
    half = len(replay(target.ledger).records)
    path.write_bytes(data)
    assert merge(target, (one,)).ledgers == 1
    assert half < len(replay(target.ledger).records) == len(replay(one.ledger).records)
    path.write_bytes(data.replace(b"complete", b"infested"))
    with pytest.raises(StoreError):
        merge(target, (one,))


def test_what_cannot_be_merged_is_refused(sweep: FormulaSweep) -> None:
    sweep(STUDY, smooth, root="one")
    one, nothing = Layout(sweep.folder / "one"), Layout(sweep.folder / "nothing")
    with pytest.raises(RunError, match="is the root to merge into"):
        merge(one, (one,))
    with pytest.raises(RunError, match="is no results root"):
        merge(one, (nothing,))


def test_a_root_that_takes_no_ledger_is_told(sweep: FormulaSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(STUDY, smooth)
    target = Layout(sweep.folder / "elsewhere")

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("orchestrator.merge.publish", full)
    with pytest.raises(StoreError, match="cannot be written: Read-only file system; name another --results"):
        merge(target, (Layout(sweep.folder / "results"),))


def test_the_whole_does_not_run_beside_a_part_nor_one_parting_beside_another(sweep: FormulaSweep) -> None:
    layout = Layout(sweep.folder / "results")
    with study_lock(layout.lock("parts@1of3"), "any"):
        with pytest.raises(RunError, match="shard 1/3 of study parts is being run by process"):
            sweep(STUDY, smooth)
        with pytest.raises(RunError, match="shard 1/3 of study parts is being run by process"):
            sweep(STUDY, smooth, shard=Shard(2, 4))
        summary, _ = sweep(STUDY, smooth, shard=Shard(2, 3))
        assert summary is not None
    with study_lock(layout.lock("parts"), "any"), pytest.raises(RunError, match="study parts as a whole is being run"):
        sweep(STUDY, smooth, shard=Shard(3, 3))
    assert sweep(STUDY, smooth)[0] is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("search: {name: tpe, trials: 4}", "search tpe asks for one config after the other"),
        ("search: {name: grid, repeats: adaptive}", "search.repeats adaptive decides on seeds"),
        ("search: {name: grid, rungs: {on: {val_accuracy: max}, at: [0.5]}}", "search.rungs compare a trial"),
    ],
)
def test_a_study_whose_trials_depend_on_each_other_is_not_parted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: str, told: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("epochs: 1", "epochs: 4") + change)
    for name in ("plan", "sweep"):
        assert main([name, str(path), "--shard", "1/2", "--results", str(tmp_path / "results")]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "x/y", "1/0", "-1/4", "1/4/2", "", "1.0/4"])
@pytest.mark.parametrize("name", ["plan", "sweep"])
def test_what_is_no_part_is_refused(capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "smoke.yaml", f"--shard={text}"])
    assert ended.value.code == 2
    assert "is no part such as 1/4 or 4/4" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plan", "sweep"])
def test_a_part_without_cells_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    assert main([name, "smoke.yaml", "--shard", "2/2", "--results", str(tmp_path)]) == 0
    assert "shard 2/2 of smoke has no cells" in capsys.readouterr().out
    assert not list(tmp_path.glob("smoke/*.parquet"))


def test_a_part_is_planned_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path, whole: Plan) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("epochs: 1", "epochs: 1, precision: fp32", 1))
    assert main(["plan", str(path), "--shard", "1/6", "--results", str(tmp_path / "results")]) == 0
    shown = capsys.readouterr()
    assert f"shard 1/6 of plan {whole.digest}, {len(whole.trials)} trials in all" in shown.err
    assert "parts: 3 cells" in shown.out


def test_parts_run_by_commands_and_merged_are_one_study(command: Command) -> None:
    text = STUDY.replace("train.lr: [0.05, 0.1]", "train.lr: [0.1]").replace("seeds: 3", "seeds: 2")
    command.study(text, "study.yaml")
    for number in (2, 1):
        shown = command(
            "sweep", "study.yaml", "--runner", "serial", "--shard", f"{number}/2", "--results", f"r{number}"
        )
        assert f"parts shard {number}/2 finished" in shown
    merged = command("merge", "r1", "r2")
    assert "2 ledgers and 20 outputs" in merged
    assert "results has all of it already" in command("merge", "r1", "r2")
    assert "0 stages ran, 20 cached" in command("sweep", "study.yaml", "--runner", "serial")
