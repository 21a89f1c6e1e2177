"""What is committed is found again whole, whatever happened to the file afterwards."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import StoreError
from orchestrator.ledger import LedgerWriter, StageRecord, new_run, replay
from orchestrator.ledger_lines import line


def record(key: str, status: str = "complete", **changes: object) -> StageRecord:
    plain = StageRecord(
        key=key, kind="train", parent=None, seed=0, status=status, busy_s=1.0, started_at=1.0, finished_at=2.0,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)  # pyright: ignore[reportArgumentType]


def commit(root: Path, run: str, *records: StageRecord) -> Path:
    writer = LedgerWriter(root, run)
    for one in records:
        writer.commit([one])
    writer.close()
    return writer.path


def test_a_record_comes_back_as_it_was_committed(tmp_path: Path) -> None:
    whole = record(
        "k", metrics={"accuracy": 0.1 + 0.2, "macs": 7, "latency_ms": None}, history=({"epoch": 1.0, "loss": 0.5},),
        config={"compress": {"pfr": 0.4}}, versions={"torch": "2"}, run="r", error="Zeile\nzwei: größer", attempt=2,
    )  # fmt: skip
    commit(tmp_path, "r", whole)
    found = replay(tmp_path)
    as_lists = {"history": [{"epoch": 1.0, "loss": 0.5}], "earlier": []}
    assert msgspec.structs.asdict(found.records["k"]) == msgspec.structs.asdict(whole) | as_lists
    assert found.warnings == ()


def test_a_commit_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path, "r")
    writer.commit([record("k")])
    assert set(replay(tmp_path).records) == {"k"}
    writer.close()


@given(st.data())
def test_every_torn_tail_keeps_all_that_was_finished_before_it(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = commit(Path(folder), "r", record("a"), record("b"), record("c"))
        content = path.read_bytes()
        ends = [n + 1 for n, byte in enumerate(content) if byte == ord("\n")]
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        found = replay(Path(folder))
        # A line is whole with its last byte of JSON, its line feed may be missing.
        whole = sum(end - 1 <= cut for end in ends) - 1
        assert list(found.records) == ["a", "b", "c"][: max(whole, 0)]
        assert found.warnings == ()


def test_damage_in_the_middle_is_told_and_costs_that_stage_alone(tmp_path: Path) -> None:
    path = commit(tmp_path, "r", record("a"), record("b"), record("c"))
    path.write_bytes(path.read_bytes().replace(b'"key":"b"', b'"key":"x"'))
    found = replay(tmp_path)
    assert set(found.records) == {"a", "c"}
    assert found.warnings == (f"{path}: line 3 is damaged; its stage counts as not done",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"ledger": 99}, "written with ledger version 99, this is version 1"),
        ({"stage": {"key": "k", "colour": 1}}, "unknown fields colour; a later version wrote this ledger"),
        ({"stage": {"key": "k"}}, "a stage record is incomplete"),
    ],
)
def test_a_foreign_ledger_is_refused_by_name(tmp_path: Path, line: dict[str, object], message: str) -> None:
    text = json.dumps(line).encode()
    (tmp_path / "r.jsonl").write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    with pytest.raises(StoreError, match=message):
        replay(tmp_path)


def test_of_the_records_of_a_stage_the_complete_then_the_settled_then_the_latest_stands(tmp_path: Path) -> None:
    commit(tmp_path, "1", record("a", "failed", failure="diverged", finished_at=9.0, run="1"))
    commit(tmp_path, "2", record("a", finished_at=3.0, run="2"), record("b", "failed", failure="lost", finished_at=9.0))
    commit(tmp_path, "3", record("a", finished_at=5.0, run="3"), record("b", "infeasible", finished_at=1.0, run="3"))
    commit(tmp_path, "4", record("a", "failed", failure="oom", finished_at=11.0, run="4"))
    found = replay(tmp_path).records
    assert (found["a"].run, found["b"].run) == ("3", "3")


def test_the_latest_is_the_one_of_the_last_run_whatever_the_clock_said(tmp_path: Path) -> None:
    first = new_run(tmp_path)
    commit(tmp_path, first, record("a", finished_at=2e9, run=first))
    (tmp_path / "20991231T235959.999999-00000000.jsonl").touch()  # as of a run before the clock was set back
    second = new_run(tmp_path)
    commit(tmp_path, second, record("a", finished_at=1e9, run=second))
    third = new_run(tmp_path)
    assert first < "20991231T235959.999999-00000000" < second < third
    assert second.startswith("21000101T000000.000000-")
    assert replay(tmp_path).records["a"].run == second


def test_a_disk_that_takes_a_part_of_a_line_is_an_error_not_a_commit(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from orchestrator.errors import StoreError\n"
        "from orchestrator.ledger import LedgerWriter, StageRecord\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "record = StageRecord('k', 'train', None, 0, 'complete', 1.0, 1.0, 2.0)\n"
        "try:\n    LedgerWriter(Path(sys.argv[1]), 'r').commit([record])\n"
        "except StoreError as error:\n    print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    assert "cannot append to the ledger: File too large" in printed
    assert replay(tmp_path).records == {}


def test_only_failures_that_would_repeat_are_settled() -> None:
    assert record("k").settled
    assert record("k", "infeasible").settled
    assert record("k", "failed", failure="diverged").settled
    assert not record("k", "failed", failure="bug").settled
    assert not record("k", "failed", failure="lost").settled


def test_a_number_that_json_has_no_word_for_is_a_bug_not_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        commit(tmp_path, "r", record("k", metrics={"accuracy": float("nan")}))


def test_an_artifact_is_absent_or_whole(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    assert store.read("k", None) is None
    sha256 = store.write("k", b"weights")
    assert store.read("k", sha256) == b"weights"
    store.path("k").write_bytes(b"weighty")
    assert store.read("k", sha256) is None
    assert [path.name for path in store.root.iterdir()] == ["k"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write the output of stage k: Permission denied"):
        ArtifactStore(tmp_path / "artifacts").write("k", b"")
    with pytest.raises(StoreError, match="cannot append to the ledger: Permission denied"):
        commit(tmp_path / "ledger", "r", record("k"))


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("")
    with pytest.raises(StoreError, match=r"cannot append to the ledger: (File exists|Not a directory)"):
        commit(tmp_path / "ledger", "r", record("k"))


def test_what_is_published_may_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        ArtifactStore(tmp_path).write("k", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"key": "../../x"}, r"line 2: key is '../../x', which no sweep writes"),
        ({"key": "/etc/passwd"}, "key is '/etc/passwd'"),
        ({"key": "a\0b"}, r"key is 'a\\x00b'"),
        ({"key": "k" * 129}, "key is 'kkk"),
        ({"key": "\N{CYRILLIC SMALL LETTER A}"}, r"key is '\\u0430'"),
        ({"parent": ".."}, "parent is '..'"),
        ({"parent": 5}, "parent is 5"),
        ({"status": "done"}, "status is 'done'"),
        ({"busy_s": "1"}, "busy_s is '1'"),
        ({"busy_s": -1.0}, r"busy_s is -1.0"),
        ({"finished_at": 1e15}, "finished_at is 1000000000000000.0"),
        ({"seed": True}, "seed is True"),
        ({"pid": 10**40}, "pid is 1000"),
        ({"metrics": {"accuracy": "high"}}, "metrics is {'accuracy': 'high'}"),
        ({"metrics": {"macs": 2**64}}, "metrics is"),
        ({"metrics": []}, r"metrics is \[\]"),
        ({"history": [1]}, r"history is \[1\]"),
        ({"history": {}}, "history is {}"),
        ({"versions": {"torch": 2}}, "versions is {'torch': 2}"),
        ({"error": "\ud800"}, r"error is '\\ud800'"),
        ({"config": {"a": {"b": "\ud800"}}}, "config is"),
    ],
)
def test_what_no_sweep_writes_is_refused_with_its_line(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    stage = msgspec.structs.asdict(record("k")) | changes
    (tmp_path / "r.jsonl").write_bytes(line({"ledger": 1}) + line({"stage": stage}))
    with pytest.raises(StoreError, match=told):
        replay(tmp_path)


@pytest.mark.parametrize(
    "text", [b"5", b"[]", b"{", b"[" * 100_000, b'{"stage":{"key":NaN}}', b'{"stage":{"seed":' + b"9" * 5000 + b"}}"]
)
def test_a_line_of_right_sum_that_holds_no_mapping_is_damaged(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(line({"ledger": 1}) + b"%08x %s\n" % (zlib.crc32(text), text) + line({"stage": {}}))
    with pytest.raises(StoreError, match="line 3: a stage record is incomplete"):
        replay(tmp_path)
    path.write_bytes(path.read_bytes().replace(line({"stage": {}}), b""))
    assert replay(tmp_path).warnings == (f"{path}: line 2 is damaged; its stage counts as not done",)


def test_infinity_has_no_place_in_a_record(tmp_path: Path) -> None:
    text = json.dumps({"stage": msgspec.structs.asdict(record("k", metrics={"accuracy": 5.0}))}).replace("5.0", "1e999")
    (tmp_path / "r.jsonl").write_bytes(b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode()))
    with pytest.raises(StoreError, match=r"metrics is \{.accuracy.: inf\}"):
        replay(tmp_path)


def test_an_attempt_that_was_followed_by_another_is_kept_and_decides_nothing(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path, "r")
    first = record("a", "failed", failure="oom", memory_limit=2**30, attempt=1)
    second = record("a", "failed", failure="lost", attempt=2, earlier=["oom"])
    writer.attempted([first, second])
    assert set(replay(tmp_path).records) == set()
    writer.commit([record("a", attempt=3, earlier=["oom", "lost"])])
    writer.close()
    found = replay(tmp_path)
    assert found.records["a"].status == "complete"
    assert [(one.attempt, one.failure) for one in found.attempts["a"]] == [(1, "oom"), (2, "lost")]
    assert found.attempts["a"][0].memory_limit == 2**30
