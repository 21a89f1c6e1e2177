"""Results, data and parents on an object store: the same rows, whatever the store does, and no secret anywhere."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, Command
from object_store import NONE, Bucket, Faults, Proxy, running

from orchestrator import lease, spool
from orchestrator.artifacts import ArtifactStore
from orchestrator.checkpoints import CheckpointStore
from orchestrator.cli import main
from orchestrator.data_root import bring, local_root
from orchestrator.errors import StoreError
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, StageRecord, new_run, replay
from orchestrator.locks import study_lock
from orchestrator.merge import merge
from orchestrator.storage import filesystems
from orchestrator.storage.remote import RemotePath
from trainables.config import DataConfig
from trainables.data.files import FILES
from trainables.errors import DataError

Chosen = Callable[[pd.DataFrame], pd.DataFrame]
SMALL = TINY.replace("  compress.threshold: [0.5, 0.7]\n", "").replace("seeds: 2", "seeds: 1")


@pytest.fixture(scope="module")
def proxy() -> Generator[Proxy]:
    with running() as found:
        yield found


@pytest.fixture
def bucket(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; this process reaches it as a command would."""
    found = Bucket(proxy, f"tests-{os.getpid()}-{time.monotonic_ns()}", tmp_path)
    found.direct.create_dir(found.name)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    filesystems.opened.cache_clear()
    proxy.asked.clear()
    proxy.harmed.clear()
    yield found
    proxy.suffer(NONE)
    filesystems.opened.cache_clear()


def record(key: str, **changes: object) -> StageRecord:
    facts: dict[str, object] = {"kind": "train", "parent": None, "seed": 0, "status": "complete", "busy_s": 1.0}
    facts |= {"started_at": 1.0, "finished_at": 2.0}
    return StageRecord(key=key, **facts | changes)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The small study on a disk."""
    command = Command(tmp_path_factory.mktemp("local"), {"OMP_NUM_THREADS": "1"})
    command("sweep", command.study(SMALL), "--runner", "serial")
    return command


def elsewhere(command: Command, bucket: Bucket) -> Command:
    return Command(command.folder, {**bucket.environment, "OMP_NUM_THREADS": "1"})


class Here:
    """The command line in this process; what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, expect: int = 0) -> str:
        code = main([str(word) for word in words])
        said = self._capsys.readouterr()
        assert code == expect, said.out + said.err
        return said.out + said.err


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


def test_a_sweep_under_faults_leaves_the_rows_of_one_on_a_disk(
    here: Here, command: Command, bucket: Bucket, local: Command, deterministic: Chosen
) -> None:
    study = command.study(SMALL)
    bucket.proxy.suffer(Faults(delay=0.05, delay_s=0.1, error=0.04, drop=0.03, lose=0.03, seed=7))
    here("sweep", study, "--runner", "serial", "--results", bucket.root)
    bucket.proxy.suffer(NONE)
    assert all(bucket.proxy.harmed[name] for name in ("delay", "error", "drop", "lose")), bucket.proxy.harmed
    path = bucket.home / "trials.parquet"
    path.write_bytes(bucket.read("results/tiny/trials.parquet"))
    pd.testing.assert_frame_equal(deterministic(pd.read_parquet(path)), deterministic(local.trials()))
    # Again: all is cached, whoever asks, and every command reads it there.
    assert "0 stages ran" in here("sweep", study, "--runner", "serial", "--results", bucket.root)
    assert "nothing to run" in here("plan", study, "--results", bucket.root)
    assert "done" in here("status", "--results", bucket.root)
    assert "No sweep is running" in here("watch", bucket.root)
    front = here("pareto", f"{bucket.root}/tiny", "--json", "--over", "none").splitlines()
    counted = here("sql", "select count(*) from trials", "--csv", "--results", bucket.root)
    assert counted.split()[-1] == str(len(local.trials()))
    assert "kept" in here("show", json.loads(front[0])["trial_id"], "--results", bucket.root)
    here("report", f"{bucket.root}/tiny")
    assert (command.folder / "tiny.html").exists()


def test_a_study_elsewhere_is_merged_into_a_disk_and_removed(
    here: Here, command: Command, bucket: Bucket, local: Command, deterministic: Chosen
) -> None:
    study = command.study(SMALL)
    here("sweep", study, "--runner", "serial", "--results", bucket.root)
    merged = here("merge", bucket.root, "--results", "merged")
    assert "1 ledger and " in merged
    assert "has all of it already" in here("merge", bucket.root, "--results", "merged")
    assert "0 stages ran" in here("sweep", study, "--runner", "serial", "--results", "merged")
    rows = pd.read_parquet(command.folder / "merged" / "tiny" / "trials.parquet")
    pd.testing.assert_frame_equal(deterministic(rows), deterministic(local.trials()))
    kept = command.study(SMALL.replace("study: tiny", "study: other\nartifacts: {keep: parents}"), "other.yaml")
    here("sweep", kept, "--runner", "serial", "--results", bucket.root)
    said = here("gc", "--results", bucket.root)
    assert "nothing to remove" in said
    assert "warning" not in said
    said = here("rm", "tiny", "--yes", "--results", bucket.root)
    assert "removed: " in said
    assert "outputs of tiny" in said
    assert "no study 'tiny'" in here("rm", "tiny", "--yes", "--results", bucket.root, expect=2)
    assert not [name for name in bucket.files() if "/tiny/" in name]
    parents = sum(1 for one in local.stages()["stage"] if one == "train")
    assert len([name for name in bucket.files() if "/artifacts/" in name]) == parents
    # the other way: what a disk has goes there
    assert "has all of it already" not in here("merge", "merged", "--results", bucket.root)
    assert "0 stages ran" in here("sweep", study, "--runner", "serial", "--results", bucket.root)


def test_segments_of_a_killed_run_are_merged_and_what_came_later_too(bucket: Bucket, tmp_path: Path) -> None:
    there, target = Layout(RemotePath.of(bucket.root)), Layout(tmp_path / "here")
    whole = tmp_path / "run.jsonl"
    writer = LedgerWriter(tmp_path, "run")
    sizes = []
    for number in range(3):
        writer.commit([record(f"k{number}")])
        sizes.append(whole.stat().st_size)
    writer.close()
    data = whole.read_bytes()
    for start, end in ((0, sizes[0]), (sizes[0], sizes[1])):
        (there.ledger / f"run.{start:012}.jsonl").write_bytes(data[start:end])
    assert merge(target, (there,)).ledgers == 1
    assert replay(target.ledger).records.keys() == {"k0", "k1"}
    (there.ledger / "run.jsonl").write_bytes(data)
    assert merge(target, (there,)).ledgers == 1
    assert merge(target, (there,)).ledgers == 0
    assert replay(target.ledger).records.keys() == {"k0", "k1", "k2"}


def test_what_was_finished_before_a_kill_is_brought_to_the_store_by_the_next_run(bucket: Bucket) -> None:
    ledger = Layout(RemotePath.of(bucket.root)).ledger
    code = (
        "import sys, time\nfrom orchestrator import spool\n"
        "from orchestrator.ledger import LedgerWriter, StageRecord\n"
        "from orchestrator.storage.remote import RemotePath\n"
        "writer = LedgerWriter(RemotePath.of(sys.argv[1]), '20260101T000000.000000-aa')\n"
        "one = lambda key: StageRecord(key=key, kind='train', parent=None, seed=0, status='complete', busy_s=1.0,"
        " started_at=1.0, finished_at=2.0)\n"
        "spool.UPLOAD_EVERY_S = 0.05\nwriter.commit([one('a1')])\ntime.sleep(1)\nspool.UPLOAD_EVERY_S = 99\n"
        "time.sleep(0.2)\nwriter.commit([one('b2')])\nprint('committed', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(ledger)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "committed\n"
    assert spool.bring_left(ledger) == 0, "its lines belong to a run that lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert set(replay(ledger).records) == {"a1"}, "the first line was there as a segment"
    assert spool.bring_left(ledger) == 1
    assert set(replay(ledger).records) == {"a1", "b2"}
    assert list(bucket.files("results/.store/ledger")) == ["results/.store/ledger/20260101T000000.000000-aa.jsonl"], (
        "one file a run is left"
    )
    assert spool.bring_left(ledger) == 0


def test_a_run_that_goes_on_after_its_end_loses_no_line(bucket: Bucket) -> None:
    """As the latencies do, which are taken when the driver has closed its ledger."""
    ledger = Layout(RemotePath.of(bucket.root)).ledger
    run = new_run(ledger)
    for key in ("a1", "b2"):
        writer = LedgerWriter(ledger, run)
        writer.commit([record(key)])
        writer.close()
    assert set(replay(ledger).records) == {"a1", "b2"}
    spool.bring_left(ledger)
    assert set(replay(ledger).records) == {"a1", "b2"}


def test_a_store_that_is_gone_is_told_in_one_line_and_what_was_finished_is_kept(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "ATTEMPTS", 1)
    monkeypatch.setattr(filesystems, "PAUSE_S", 0.01)
    ledger = Layout(RemotePath.of(bucket.root)).ledger
    writer = LedgerWriter(ledger, "20260101T000000.000000-bb")
    writer.commit([record("a1")])
    bucket.proxy.suffer(Faults(error=1.0))
    with pytest.raises(StoreError, match=r"cannot be written.*What was finished is kept in .*bb\.jsonl"):
        writer.close()
    bucket.proxy.suffer(NONE)
    assert spool.bring_left(ledger) == 1
    assert set(replay(ledger).records) == {"a1"}


def test_a_bucket_that_does_not_exist_is_a_mistake_of_one_line(bucket: Bucket, command: Command) -> None:
    words = ("sweep", command.study(SMALL), "--runner", "serial", "--results", "s3://no-such-bucket/x")
    said = elsewhere(command, bucket)(*words, expect=2)
    assert "Traceback" not in said
    assert "s3://no-such-bucket/x" in said
    assert "bucket does not exist" in said


@pytest.mark.parametrize("of", [lambda layout: layout.artifacts, lambda layout: layout.checkpoints])
def test_stores_list_and_drop_there_too(
    bucket: Bucket, of: Callable[[Layout], ArtifactStore | CheckpointStore]
) -> None:
    store = of(Layout(RemotePath.of(bucket.root)))
    assert list(store.keys()) == []
    store.write("a1", b"xyz")
    store.write("b2", b"x" * 6_000_000)
    assert {one.key: one.bytes for one in store.keys()} == {"a1": 3, "b2": 6_000_000}
    assert all(abs(one.modified_s - time.time()) < 60 for one in store.keys())
    store.drop("a1")
    store.drop("a1")
    assert [one.key for one in store.keys()] == ["b2"]


FETCH = """\
import sys
from orchestrator.artifacts import ArtifactStore
from orchestrator.storage.remote import RemotePath
print(len(ArtifactStore(RemotePath.of(sys.argv[1])).read(sys.argv[2], sys.argv[3])))
"""


def test_a_parent_is_fetched_once_by_each_node_however_many_workers_ask(bucket: Bucket, tmp_path: Path) -> None:
    root = RemotePath.of(bucket.root) / ".store" / "artifacts"
    sha256 = ArtifactStore(root).write("a1", b"parent" * 1000)
    bucket.proxy.asked.clear()
    bucket.proxy.suffer(Faults(delay=1.0, delay_s=0.2))  # so that all ask before the first has its answer
    nodes = [{**os.environ, "XDG_CACHE_HOME": str(tmp_path / f"node-{number}")} for number in range(2)]
    command = [sys.executable, "-c", FETCH, str(root), "a1", sha256]
    asking = [
        subprocess.Popen(command, env=node, stdout=subprocess.PIPE, text=True) for node in nodes for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0] for process in asking] == ["6000\n"] * 6
    assert sum(bucket.proxy.gets("artifacts/a1").values()) == 2


def test_a_parent_that_is_not_what_was_written_is_not_used(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Layout(RemotePath.of(bucket.root)).artifacts
    sha256 = store.write("a1", b"good")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bucket.home / "another node"))
    store.path("a1").write_bytes(b"evil")
    assert store.read("a1", sha256) is None
    store.path("a1").write_bytes(b"good")
    assert store.read("a1", sha256) == b"good"
    cached = store.file("a1", sha256)
    assert cached
    cached.write_bytes(b"rust")
    assert store.read("a1", sha256) == b"good", "a damaged copy is fetched anew"


def test_the_cache_keeps_to_its_bytes(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE_GIB", str(2500 / 2**30))
    store = Layout(RemotePath.of(bucket.root)).artifacts
    sums = {key: store.write(key, key.encode() * 500) for key in ("a1", "b2", "c3")}
    files = [path.name[:2] for path in (bucket.home / "cache").rglob("*-*") if path.is_file()]
    assert sorted(files) == ["b2", "c3"]
    assert store.read("a1", sums["a1"]) == b"a1" * 500


def test_a_data_set_elsewhere_is_fetched_once_and_checked(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"set/one": b"first", "set/two": b"second"}
    sums = {path: hashlib.md5(data, usedforsecurity=False).hexdigest() for path, data in files.items()}
    monkeypatch.setitem(FILES, "mnist", sums)
    given = RemotePath.of(f"s3://{bucket.name}/data")
    for path, data in files.items():
        (given / path).write_bytes(data)
    bucket.proxy.asked.clear()
    for _ in range(3):
        bring(given, DataConfig(name="mnist"))
    assert bucket.proxy.gets("data/set") == {f"{bucket.name}/data/{path}": 1 for path in files}
    assert (local_root(given) / "set/two").read_bytes() == b"second"
    (given / "set/one").write_bytes(b"wrong")
    (local_root(given) / "set/one").unlink()
    with pytest.raises(DataError, match="set/one: damaged or incomplete"):
        bring(given, DataConfig(name="mnist"))


def test_a_folder_of_images_follows_the_one_elsewhere(bucket: Bucket) -> None:
    given = RemotePath.of(f"s3://{bucket.name}/data")
    config = DataConfig(name="imagefolder", folder="cats")
    for name in ("a/1.png", "b/2.png"):
        (given / "cats" / name).write_bytes(name.encode())
    bring(given, config)
    (given / "cats" / "a/1.png").unlink()
    (given / "cats" / "a/3.png").write_bytes(b"new")
    bucket.proxy.asked.clear()
    bring(given, config)
    local = local_root(given) / "cats"
    assert sorted(str(path.relative_to(local)) for path in local.rglob("*.png")) == ["a/3.png", "b/2.png"]
    assert set(bucket.proxy.gets("cats/")) == {f"{bucket.name}/data/cats/a/3.png"}, "what is the same is not fetched"


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT_S": 0.2, "STALE_S": 2.0, "SETTLE_S": 0.1, "LOOK_EVERY_S": 0.1}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.mark.usefixtures("quick_lease")
def test_a_lease_is_held_by_one_and_taken_over_from_the_dead(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Layout(RemotePath.of(bucket.root)).lock("tiny")
    with study_lock(lock, "plan") as first:
        assert first is None
        with study_lock(lock, "plan") as second:
            assert second is not None
            assert (second.digest, second.pid) == ("plan", os.getpid())
    assert bucket.files("results/.store/locks") == {}, "it is given back at the end"
    # One of another machine that nobody renews, of an hour in the future by its clock.
    left = lease.Lease("other", 1, "elsewhere", "another kernel", "token", time.time() + 3600, beat=4)
    lock.write_text(json.dumps(asdict(left)))
    began = time.monotonic()
    with study_lock(lock, "plan") as other:
        assert other is None
    assert time.monotonic() - began >= 1.5, "it is watched first"


SECRETS = ("AKIAIOSFODNN7SECRETS", "wJalrXUtnFEMI%2FK7MDENGbPxRfiCYEXAMPLEKEY")


def test_keys_in_a_uri_reach_no_file_and_no_screen(here: Here, command: Command, bucket: Bucket) -> None:
    uri = bucket.root.replace("s3://", f"s3://{SECRETS[0]}:{SECRETS[1]}@")
    study = command.study(SMALL)
    said = here("sweep", study, "--runner", "serial", "--results", uri)
    said += here("status", "--results", uri)
    said += here("pareto", f"{uri}/tiny")
    said += here("report", f"{uri}/tiny")
    said += here("pareto", f"{uri}/nosuch", expect=2)
    for wrong in (uri.replace("s3://", "s4://"), uri.replace("%2F", "/"), f"{uri}?nosuch=1"):
        said += refused(command, "plan", study, "--results", wrong)
    written = [path.read_bytes() for path in bucket.home.rglob("*") if path.is_file()]
    written += [bucket.read(path) for path in bucket.files()]
    for secret in (*SECRETS, SECRETS[1].replace("%2F", "/"), bucket.environment["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in said
        assert not any(secret.encode() in data for data in written)
    assert bucket.name in said


def refused(command: Command, *words: object) -> str:
    return command(*words, expect=2)


def test_labels_are_given_on_a_disk(bucket: Bucket, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    images = "{name: imagefolder, folder: x, labels: l.csv, classes: [a, b]}"
    study = command.study(SMALL.replace("{name: digits, train_size: 300}", images))
    assert main(["label", "next", str(study), "--results", bucket.root]) == 2
    assert "on a disk" in capsys.readouterr().err
