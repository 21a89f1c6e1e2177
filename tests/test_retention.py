"""What stays of a results root, what goes, and that nothing goes which somebody wants."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import refused
from formula_runner import FormulaSweep, smooth
from study_files import faults

from orchestrator import retention_command
from orchestrator.cli import main
from orchestrator.layout import Layout
from orchestrator.locks import study_lock
from orchestrator.plan import Planner
from orchestrator.retention.removal import GC_LOCK, alone
from orchestrator.retention.rubbish import YOUNG_S, Found
from orchestrator.shards import Shard
from orchestrator.spec.load import load_spec

GRID = """\
study: {name}
base:
  data: {{name: digits}}
  model: {{name: resnet8}}
  compress: {{method: stq}}
axes:
  compress.pfr: {pfr}
seeds: 2
objectives: {{val_accuracy: max, compression: max}}
"""
KEEP = "artifacts: {{keep: {keep}}}\n"
SEARCH = GRID.replace("{pfr}", "{{uniform: [0, 0.5]}}") + "search: {{name: tpe, trials: 3}}\n"


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FormulaSweep:
    """Sweeps whose outputs are a few bytes; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    return FormulaSweep(tmp_path)


def grid(name: str, pfr: str = "[0, 0.2, 0.4]", keep: str | None = None) -> str:
    return (GRID + (KEEP if keep else "")).format(name=name, pfr=pfr, keep=keep)


def layout() -> Layout:
    return Layout(Path("results"))


def outputs() -> set[str]:
    return {one.key for one in layout().artifacts.keys()}


def paths(text: str, **wanted: Any) -> set[str]:
    """Keys of the stages of the cells (or of one kind) of a study."""
    Path("asked.yaml").write_text(text)
    plan = Planner(load_spec("asked.yaml"), lambda _: "fp32").plan
    if kinds := wanted.get("kinds"):
        return {key for key, stage in plan.stages.items() if stage.kind in kinds}
    return set(plan.stages)


def run(*words: object) -> int:
    return main(list(map(str, words)))


def age(path: Path, seconds: float = 2 * YOUNG_S) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{keep: fronts}", "artifacts.keep: 'fronts' must be one of all, front, parents; did you mean 'front'?"),
        ("{keep: [all]}", 'artifacts.keep: ["all"] must be one of all, front, parents; valid: all, front, parents'),
        ("front", "artifacts: 'front' must be a mapping such as {keep: front}"),
        ("{kept: all}", "artifacts.kept: unknown key; did you mean 'keep'?"),
    ],
)  # fmt: skip
def test_what_a_study_may_keep(tmp_path: Path, text: str, told: str) -> None:
    assert [fault.partition(": ")[2] for fault in faults(tmp_path, f"{grid('s')}artifacts: {text}")] == [told]


def test_all_is_kept_unless_the_study_says_otherwise(swept: FormulaSweep) -> None:
    summary, ran = swept(grid("s"), smooth)
    assert summary is not None
    assert summary.evicted.files == 0
    assert outputs() == {stage.key for stage in ran} == paths(grid("s"))


def test_parents_are_what_further_cells_start_from(swept: FormulaSweep) -> None:
    text = grid("s", keep="parents")
    summary, ran = swept(text, smooth)
    assert summary is not None
    assert outputs() == paths(text, kinds={"train"})
    assert summary.evicted.files == len(ran) - len(outputs())
    _, more = swept(grid("s", "[0, 0.2, 0.4, 0.5]", keep="parents"), smooth)
    assert sorted(stage.kind for stage in more) == ["compress", "compress", "evaluate", "evaluate"]


def test_of_a_front_stay_its_trials_stage_by_stage(swept: FormulaSweep) -> None:
    """Accuracy falls and compression rises with pfr but for 0.2, which is worse than 0.4 in both."""

    def bent(stage: Any) -> Mapping[str, float]:
        pfr = getattr(stage.config.compress, "pfr", 0.0)
        worse = {"val_accuracy": 0.1, "accuracy": 0.1, "compression": 1.0, "test_images": 100}
        return worse if pfr == 0.2 else (smooth(stage) or {})

    text = grid("s", keep="front")
    swept(text, bent)
    df = pd.read_parquet("results/s")
    cells, dense = df[df["role"] == "cell"], df[df["baseline"] == "dense"]
    members = cells[cells["compress.pfr"] != 0.2]
    names = [name for name in df.columns if name.startswith("stage_keys.")]
    expected = {key for name in names for key in members[name].dropna()} | set(dense["stage_keys.evaluate"])
    assert len(members) == 4
    assert outputs() == expected
    assert df["status"].eq("complete").all()
    summary, ran = swept(text, bent)
    assert ran == []
    assert summary is not None
    assert outputs() == expected


def test_an_evicted_output_that_is_needed_is_computed_again(swept: FormulaSweep) -> None:
    swept(grid("s", keep="front"), smooth)
    for key in paths(grid("s"), kinds={"train"}):
        layout().artifacts.drop(key)
    _, ran = swept(grid("s", "[0, 0.2, 0.4, 0.5]", keep="front"), smooth)
    assert sorted(stage.kind for stage in ran) == ["compress"] * 2 + ["evaluate"] * 2 + ["train"] * 2


def test_nothing_is_evicted_before_the_end_or_where_a_trial_may_run_again(swept: FormulaSweep) -> None:
    text = grid("s", keep="parents")
    _, ran = swept(text, smooth, most=5)
    assert outputs() == {stage.key for stage in ran}
    assert run("gc") == 0
    assert outputs() == {stage.key for stage in ran}


def test_what_another_study_wants_is_not_evicted(swept: FormulaSweep) -> None:
    swept(grid("other", "[0.2]"), smooth)
    swept(grid("s", keep="parents"), smooth)
    assert outputs() == paths(grid("other", "[0.2]")) | paths(grid("s"), kinds={"train"})


def test_a_study_whose_plan_cannot_be_known_keeps_everything(
    swept: FormulaSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(grid("other", "[0.2]"), smooth)
    Path("results/other/_study.yaml").write_text("study: other\nbase: {}\n")
    _, ran = swept(grid("s", keep="parents"), smooth)
    whole = outputs()
    assert {stage.key for stage in ran} <= whole
    shutil.rmtree("results/s")
    capsys.readouterr()
    assert run("gc") == 0
    assert outputs() == whole
    assert "every output and checkpoint stays, as the plan of other is not known" in capsys.readouterr().out
    Path("results/other/_study.yaml").write_text(grid("other", "[0.2]"))
    assert run("gc") == 0
    assert outputs() == paths(grid("other", "[0.2]"))


@pytest.mark.parametrize(("count", "told"), [(1, "1 checkpoint stays, 7 bytes"), (2, "2 checkpoints stay, 7 bytes")])
def test_one_stays_and_two_stay(capsys: pytest.CaptureFixture[str], count: int, told: str) -> None:
    found = Found([], {"checkpoint": (count, 7)})
    retention_command._say_gc(found, removed=True)  # pyright: ignore[reportPrivateUsage]
    assert told in capsys.readouterr().out


def test_gc_takes_what_no_study_wants_and_tells_bytes(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    swept(grid("s"), smooth)
    swept(grid("t", "[0.5]"), smooth)
    shutil.rmtree("results/t")
    whole, wanted = outputs(), paths(grid("s"))
    layout().checkpoints.write(next(iter(whole - wanted)), b"orphan")
    layout().checkpoints.write("0" * 32, b"nobody's")
    capsys.readouterr()
    assert run("gc", "--dry-run") == 0
    told = capsys.readouterr().out
    gone = len(whole - wanted)
    assert f"{gone} outputs would go, {7 * gone} bytes; {len(wanted)} outputs stay, {7 * len(wanted)} bytes" in told
    assert f"2 checkpoints would go, 14 bytes\n{7 * gone + 14} bytes would be freed" in told
    assert outputs() == whole
    assert run("gc") == 0
    assert f"{7 * gone + 14} bytes freed" in capsys.readouterr().out
    assert outputs() == wanted
    assert list(layout().checkpoints.keys()) == []
    assert run("gc") == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_the_rows_that_an_edited_study_lost_are_nobodys(swept: FormulaSweep) -> None:
    swept(grid("s"), smooth)
    swept(grid("s", "[0, 0.2]"), smooth)
    assert run("gc") == 0
    assert outputs() == paths(grid("s", "[0, 0.2]"))


def test_a_killed_search_keeps_what_it_asked_for(swept: FormulaSweep) -> None:
    _, ran = swept(SEARCH.format(name="s"), smooth, most=9)
    assert len(ran) == 9
    assert run("gc") == 0
    assert outputs() == {stage.key for stage in ran}


def test_adaptive_repeats_keep_the_seeds_that_they_added(swept: FormulaSweep) -> None:
    text = grid("s").replace("seeds: 2", "seeds: 3") + "search: {name: grid, repeats: adaptive}\n"
    _, ran = swept(text, smooth)
    for table in Path("results/s").glob("*.parquet"):
        table.unlink()
    assert run("gc") == 0
    assert outputs() == {stage.key for stage in ran}


def test_checkpoints_of_a_study_stay_unless_they_are_asked_for(swept: FormulaSweep) -> None:
    _, ran = swept(grid("s"), smooth, most=3)
    done = {stage.key for stage in ran}
    begun = next(iter(paths(grid("s")) - done))
    store = layout().checkpoints
    for key in (begun, next(iter(done))):
        store.write(key, b"state")
    assert run("gc") == 0
    assert [one.key for one in store.keys()] == [begun]
    assert run("gc", "--checkpoints") == 0
    assert list(store.keys()) == []


def test_what_killed_writers_left_goes_when_it_is_old(swept: FormulaSweep) -> None:
    swept(grid("s"), smooth)
    store = Path("results/.store")
    (store / "drains").mkdir(exist_ok=True)
    (store / "checkpoints").mkdir(exist_ok=True)
    hexes = "0123456789abcdef"
    left = [
        store / "artifacts" / f".{'a' * 32}.{hexes}", store / "checkpoints" / f".{'a' * 32}.{hexes}",
        Path("results/s") / f".trials.parquet.{hexes}", store / f".probes.json.{hexes}", store / "drains" / "20260101T",
    ]  # fmt: skip
    others = [Path("results/s/.hidden"), Path("results/.gitignore"), store / "artifacts" / ".keep"]
    for path in (*left, *others):
        path.write_bytes(b"part")
    unrecorded = store / "artifacts" / ("f" * 32)
    unrecorded.write_bytes(b"written, and its driver killed")
    assert run("gc") == 0
    assert all(path.exists() for path in (*left, *others, unrecorded))
    for path in (*left, *others, unrecorded):
        age(path)
    assert run("gc") == 0
    assert not any(path.exists() for path in (*left, unrecorded))
    assert all(path.exists() for path in others)


def test_files_of_the_future_stay(swept: FormulaSweep) -> None:
    """The clock was set back since."""
    swept(grid("s"), smooth)
    path = Path("results/.store/artifacts") / ("f" * 32)
    path.write_bytes(b"x")
    age(path, -10 * YOUNG_S)
    assert run("gc") == 0
    assert path.exists()


@pytest.fixture
def shared(swept: FormulaSweep) -> tuple[FormulaSweep, set[str]]:
    """Two studies; the folder of the second is gone, what it left is an hour old."""
    swept(grid("s"), smooth)
    swept(grid("t", "[0.5]"), smooth)
    shutil.rmtree("results/t")
    for path in Path("results/.store/artifacts").iterdir():
        age(path)
    return swept, outputs()


def test_beside_a_sweep_whose_plan_is_known_the_rest_goes(shared: tuple[FormulaSweep, set[str]]) -> None:
    swept, _ = shared
    digest = swept.planner(grid("s")).plan.digest
    with study_lock(layout().lock("s"), digest):
        assert run("gc", "--checkpoints") == 0
    assert outputs() == paths(grid("s"))


def test_beside_a_sweep_young_things_stay(shared: tuple[FormulaSweep, set[str]]) -> None:
    swept, whole = shared
    young = sorted(whole - paths(grid("s")))[0]
    age(Path("results/.store/artifacts") / young, 0)
    with study_lock(layout().lock("s"), swept.planner(grid("s")).plan.digest):
        assert run("gc") == 0
    assert outputs() == paths(grid("s")) | {young}


@pytest.mark.parametrize("study", ["s", "begins_now"])
def test_beside_a_sweep_whose_plan_is_not_known_everything_stays(
    shared: tuple[FormulaSweep, set[str]], study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its `_study.yaml` is not there yet, or of its last run."""
    _, whole = shared
    with study_lock(layout().lock(study), "another"):
        assert run("gc") == 0
    assert outputs() == whole
    assert f"as the plan of {study} is not known" in capsys.readouterr().out


def test_a_sweep_that_begins_while_things_are_removed_waits(swept: FormulaSweep) -> None:
    begun = threading.Event()

    def formula(stage: Any) -> Mapping[str, float] | None:
        begun.set()
        return smooth(stage)

    thread = threading.Thread(target=swept, args=(grid("s"), formula))
    with alone(layout()):
        thread.start()
        assert not begun.wait(1.0)
        assert layout().lock("s").exists()
    thread.join(60)
    assert begun.is_set()
    assert len(outputs()) == len(paths(grid("s")))


def test_two_do_not_remove_at_once(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    swept(grid("s"), smooth)
    with study_lock(layout().lock(GC_LOCK), ""):
        assert "removes things from" in refused(capsys, "gc")
        assert run("rm", "s", "--yes") == 2
    assert outputs() == paths(grid("s"))


def test_gc_names_a_root_that_is_none(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, "gc", "--results", "absent")


def test_rm_takes_a_study_and_what_it_alone_needs(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    swept(grid("s"), smooth)
    swept(grid("t", "[0.4, 0.5]"), smooth)
    Path("results/t/_report").mkdir()
    Path("results/t/_report/report.html").write_text("a report")
    layout().checkpoints.write(next(iter(paths(grid("t", "[0.5]")) - paths(grid("s")))), b"state")
    whole = outputs()
    capsys.readouterr()
    assert run("rm", "t", "--dry-run") == 0
    told = capsys.readouterr().out
    assert (outputs(), Path("results/t/trials.parquet").exists()) == (whole, True)
    assert run("rm", "t", "--yes") == 0
    assert capsys.readouterr().out.startswith(told)
    assert outputs() == paths(grid("s"))
    assert not Path("results/t").exists()
    assert list(layout().checkpoints.keys()) == []
    assert pd.read_parquet("results/s")["status"].eq("complete").all()


def test_what_was_removed_comes_back_from_the_ledger_and_is_computed_where_needed(swept: FormulaSweep) -> None:
    swept(grid("s"), smooth)
    before = pd.read_parquet("results/s")
    assert run("rm", "s", "--yes") == 0
    assert outputs() == set()
    _, ran = swept(grid("s"), smooth)
    assert ran == []
    pd.testing.assert_frame_equal(pd.read_parquet("results/s"), before)
    _, ran = swept(grid("s", "[0, 0.2, 0.4, 0.5]"), smooth)
    assert sorted(stage.kind for stage in ran) == ["compress"] * 2 + ["evaluate"] * 2 + ["train"] * 2


def test_rm_leaves_what_is_not_ours_and_names_it(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    swept(grid("s"), smooth)
    secret = Path("secret")
    secret.write_text("mine")
    mine = [Path("results/s/notes.md"), Path("results/s/_report/figure.pdf"), Path("results/s/_labelling/answers.csv")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    Path("results/s/_history.parquet").unlink()
    Path("results/s/_history.parquet").symlink_to(secret.resolve())
    Path("results/s/folder").symlink_to(Path.cwd())
    assert run("rm", "s", "--yes") == 0
    told = capsys.readouterr().out
    left = {*mine, Path("results/s/_history.parquet"), Path("results/s/folder")}
    assert {path for path in Path("results/s").rglob("*") if path.is_symlink() or path.is_file()} == left
    assert all(path.relative_to("results").as_posix() in told for path in left)
    assert secret.read_text() == "mine"


@pytest.mark.parametrize("name", ["../s", "/etc", ".", "..", "", "s/", ".store", "absent", "a\0b", "reference"])
def test_rm_takes_no_name_that_leads_elsewhere(
    swept: FormulaSweep, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    swept(grid("s"), smooth)
    Path("_study.yaml").write_text("study: s\n")
    Path("results/reference").mkdir()
    assert "no study" in refused(capsys, "rm", name, "--yes")
    assert outputs() == paths(grid("s"))


def test_rm_follows_no_link(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    swept(grid("s"), smooth)
    Path("results/s").rename("elsewhere")
    Path("results/s").symlink_to(Path("elsewhere").resolve())
    assert "is a link to" in refused(capsys, "rm", "s", "--yes")
    assert Path("elsewhere/trials.parquet").exists()


def test_rm_refuses_while_the_study_runs_or_is_labelled(
    swept: FormulaSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(grid("s"), smooth)
    with study_lock(layout().lock("s"), "d"):
        assert f"is run by process {os.getpid()}" in refused(capsys, "rm", "s", "--yes")
    with study_lock(layout().lock("_labelling-s"), ""):
        assert "is at its labels" in refused(capsys, "rm", "s", "--yes")
    assert run("rm", "s", "--yes") == 0


def test_rm_asks(swept: FormulaSweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    swept(grid("s"), smooth)
    assert run("rm", "s") == 2
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, there in (("n", True), ("", True), ("y", False)):
        monkeypatch.setattr(sys.stdin, "readline", lambda answer=answer: f"{answer}\n", raising=False)
        assert run("rm", "s") == 0
        assert Path("results/s").exists() is there
    assert "Remove study s? [y/N] " in capsys.readouterr().out


def test_an_rm_that_was_cut_off_is_repeated(swept: FormulaSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(grid("s"), smooth)
    count, unlink = 0, Path.unlink

    def limited(self: Path, missing_ok: bool = False) -> None:
        nonlocal count
        count += 1
        if count > 7:
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", limited)
        assert run("rm", "s", "--yes") == 130
    assert Path("results/s/_study.yaml").exists()
    assert run("rm", "s", "--yes") == 0
    assert not Path("results/s").exists()
    assert outputs() == set()


def test_sizes_are_told_in_powers_of_a_thousand() -> None:
    sizes = (0, 999, 1000, 1_250_000, 3 * 10**12)
    told = [retention_command._size(size) for size in sizes]  # pyright: ignore[reportPrivateUsage]
    assert told == ["0 bytes", "999 bytes", "1.0 kB", "1.2 MB", "3.0 TB"]


def test_shards_evict_when_the_last_of_them_ends(swept: FormulaSweep, capsys: pytest.CaptureFixture[str]) -> None:
    text = grid("s", keep="parents")
    swept(text, smooth, shard=Shard(1, 2))
    half = outputs()
    assert any(layout().locks("s"))
    with study_lock(layout().lock("s@2of2"), swept.planner(text).plan.digest):
        assert "is run by process" in (refused(capsys, "rm", "s", "--yes"))
        assert run("gc") == 0
    assert outputs() == half
    swept(text, smooth, shard=Shard(2, 2))
    assert outputs() == paths(text, kinds={"train"})
