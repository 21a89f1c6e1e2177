"""Faults done to real sweeps, and nothing is lost: a few of each here, all by `uv run python -m benchmarks.chaos`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.chaos import clock_faults, ray_faults, serial_faults, store_faults
from benchmarks.chaos.__main__ import BEGIN, END, FAULTS, write_table
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.reader import Reader
from benchmarks.chaos.scene import Scene, commits
from benchmarks.chaos.studies import one_cell
from benchmarks.chaos.tally import Tally, markdown
from benchmarks.chaos.warm import Orders
from orchestrator.ledger import LedgerWriter, replay

Fault = Callable[[Bench, int], Tally]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def finished(bench: Bench) -> Scene:
    """A study that nobody touched, in a folder of its own."""
    scene = bench.scene(one_cell(), Tally("none"))
    shutil.copytree(bench.untouched(one_cell()), scene.folder, dirs_exist_ok=True)
    scene.compare()
    assert scene.tally.details == []
    return scene


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (serial_faults.random_kills, 3),
        (serial_faults.kills_at_every_moment, 4),
        (serial_faults.full_disk_at_every_moment, 2),
        (serial_faults.read_only_at_every_moment, 2),
        (store_faults.small_disks, 1),
        (store_faults.read_only_disks, 1),
        (store_faults.two_sweeps, 1),
    ],
)
def test_nothing_is_lost(bench: Bench, fault: Fault, times: int) -> None:
    tally = fault(bench, times)
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.details == []
    assert tally.losses == 0
    assert tally.struck > 0 or fault is store_faults.two_sweeps, "a sweep may end before it is killed"
    assert tally.reads > 0


@pytest.mark.chaos
@pytest.mark.parametrize("name", [*clock_faults.FAULTS, *ray_faults.FAULTS])
def test_nothing_is_lost_where_it_takes_longer(bench: Bench, name: str) -> None:
    tally = FAULTS[name][0](bench, 1)
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.details == []
    assert tally.struck > 0


def test_the_moments_are_all_that_a_sweep_does_to_its_files(bench: Bench) -> None:
    whole = bench.moments(one_cell())
    stages = len(bench.reference(one_cell()).outputs)
    written = [one for one in whole if " write .store/artifacts/" in one]
    published = [one for one in whole if " rename .store/artifacts/" in one]
    assert len(written) == len(published) == stages
    assert any(" write .store/ledger/" in one for one in whole)
    assert any(" rename .store/checkpoints/" in one for one in whole)
    assert {"create", "write", "fsync", "rename", "remove", "mkdir", "truncate"} == {one.split()[1] for one in whole}


def test_a_stage_that_is_redone_is_seen(finished: Scene) -> None:
    """Its record is made unreadable; the stage then is gone, begun again and in its row the same as before."""
    before = finished.sweep(Orders())
    before.wait()
    (ledger,) = finished.root.glob(".store/ledger/*.jsonl")
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]))
    again = finished.sweep()
    assert again.wait() == 0
    assert len(again.noted("began")) == 1
    finished.judge(before)
    assert finished.tally.lost == 0
    ledger.write_bytes(b"".join(lines[:-2]))
    finished.judge(again)
    assert finished.tally.lost == 1


def test_a_stage_that_is_committed_twice_is_seen(finished: Scene) -> None:
    assert set(commits(finished.root).values()) == {1}
    record = next(iter(replay(finished.root / ".store" / "ledger").records.values()))
    writer = LedgerWriter(finished.root / ".store" / "ledger", "another")
    writer.commit([record])
    writer.close()
    finished.compare()
    assert finished.tally.redone == 1


def test_a_row_that_differs_is_seen(finished: Scene) -> None:
    path = finished.root / "points" / "trials.parquet"
    frame = pd.read_parquet(path)
    frame["accuracy"] = frame["accuracy"].where(frame.index != 0, frame["accuracy"] + 1e-9)
    frame["wall_time_s"] = frame["wall_time_s"] + 1.0
    frame.to_parquet(path)
    finished.compare()
    assert finished.tally.differing == 1
    frame.iloc[1:].to_parquet(path)
    finished.compare()
    assert finished.tally.differing == 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("points/trials.parquet", lambda data: data[:-1]),
        ("points/_stages.parquet", lambda data: data[: len(data) // 2]),
        ("points/_study.yaml", lambda data: data[:-1]),
        (".store/artifacts/KEY", lambda data: data[:-1]),
        (".store/checkpoints/KEY", lambda data: data),
        ("points/trials.parquet", None),
        (".store/artifacts/KEY", None),
    ],
)
def test_a_file_in_part_or_gone_is_seen(finished: Scene, name: str, change: Callable[[bytes], bytes] | None) -> None:
    key = next(iter(finished.reference.outputs))
    path = finished.root / name.replace("KEY", key)
    reader = finished.watched()
    reader.look()
    assert finished.tally.partial == 0
    if change is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(change(path.read_bytes() if path.exists() else b"no checkpoint at all, and longer than a sum"))
    reader.look()
    assert finished.tally.partial == 1, finished.tally.details


def test_a_row_of_another_value_is_seen_by_a_reader(finished: Scene, tmp_path: Path) -> None:
    path = finished.root / "points" / "trials.parquet"
    frame = pd.read_parquet(path)
    frame["accuracy_drop"] = None
    frame.to_parquet(path)
    reader = Reader(finished.root, "points", finished.reference, finished.tally)
    reader.look()
    assert finished.tally.partial == 0, "its baseline may not have finished"
    frame["accuracy"] = 0.5
    frame.to_parquet(path)
    reader.look()
    assert finished.tally.partial == 1


def test_the_table_tells_of_losses_and_of_what_was_not_done() -> None:
    bad = Tally("kill", "SIGKILL", repetitions=2, struck=2, in_stage=1)
    bad.lose("redone", "a stage ran twice")
    lines = markdown([bad, Tally("full disk", skipped="no mounts here")]).splitlines()
    assert "2 (1 in a stage, 0 in a write)" in lines[2]
    assert lines[2].split(" | ")[-2] == "1"
    assert "not done here: no mounts here" in lines[3]
    with pytest.raises(ValueError, match="no kind of loss"):
        bad.lose("forgotten", "")


def test_the_table_of_a_document_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for fault in ("first", "second"):
        write_table(document, [Tally(fault, "by hand")], 0.5)
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n`uv run python -m benchmarks.chaos --scale 0.5`")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "first" not in text
    assert "| second | by hand |" in text
