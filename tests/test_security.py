"""What SECURITY.md promises: files are data, names stay in their folder, servers on this machine."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY, Command, refused
from msgspec.structs import replace

from orchestrator.cli import main
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, replay
from orchestrator.names import is_plain
from orchestrator.report.serve import LiveReport, Server
from orchestrator.storage.secrets import redacted
from orchestrator.words import harmless
from trainables.data import files
from trainables.errors import DataError, TrialError
from trainables.stages import run_stage

SMALL = TINY.partition("axes:")[0] + "objectives: {accuracy: max, compression: max}\n"


class Bomb:
    """Pickled, it makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str, str], Any], tuple[str, str]]:
        return open, (str(self.canary), "w")


@pytest.fixture(scope="module")
def swept_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "tiny.yaml").write_text(SMALL)
    words = ("sweep", folder / "tiny.yaml", "--runner", "serial", "--results", folder / "results")
    assert main(list(map(str, words))) == 0
    return folder


@pytest.fixture
def swept(swept_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a small swept study, as the working folder."""
    shutil.copytree(swept_small, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def run(*words: object) -> int:
    return main(list(map(str, words)))


def a_trial() -> str:
    df = pd.read_parquet("results/tiny")
    return str(df[df["role"] == "cell"]["trial_id"].iloc[0])


def test_a_bomb_goes_off_where_it_is_unpickled(tmp_path: Path) -> None:
    data = pickle.dumps(Bomb(tmp_path / "canary"))
    pickle.loads(data).close()
    assert (tmp_path / "canary").exists()


def test_no_file_of_a_results_root_is_unpickled(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary = swept.parent / "canary"
    bomb = pickle.dumps(Bomb(canary))
    trial, layout = a_trial(), Layout(Path("results"))
    for stored in list(layout.artifacts.keys()):
        layout.artifacts.write(stored.key, bomb)
    layout.checkpoints.write("0" * 32, bomb)
    assert run("export", trial, "--format", "packed") == 0  # computed again
    # Outputs that are needed again are damaged: their stages run again, from checkpoints that are bombs too.
    for key in replay(layout.ledger).records:
        layout.checkpoints.write(key, bomb)
    assert run("sweep", "tiny.yaml", "--runner", "serial", "--set", "axes.compress.pfr=[0.2]") == 0
    (layout.ledger / "bomb.jsonl").write_bytes(bomb)
    layout.probes.write_bytes(bomb)
    assert run("plan", "tiny.yaml") == 0
    assert run("status") == 0
    for name in ("_stages.parquet", "_history.parquet", "trials.parquet", "_study.yaml"):
        (layout.study("tiny") / name).write_bytes(bomb)
        run("report", "results/tiny")
    both = ("compare", "results/tiny", "results/tiny")
    for command in (("pareto", "results/tiny"), ("sql", "select * from trials"), ("status",), both):
        refused(capsys, *command)
    assert not canary.exists()


def test_no_artifact_is_unpickled_even_where_no_sum_is_recorded(swept: Path) -> None:
    canary = swept.parent / "canary"
    bomb = pickle.dumps(Bomb(canary))
    from orchestrator.plan import Planner
    from orchestrator.spec.load import load_spec
    from trainables.data.load import load

    stages = Planner(load_spec("tiny.yaml"), lambda _: "fp32").plan.stages.values()
    for stage in stages:
        if stage.parent is not None:
            with pytest.raises(TrialError):
                run_stage(stage, load(stage.config.data, 0, Path()), bomb)
    assert not canary.exists()


def test_nothing_that_predict_is_given_is_unpickled(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary = swept.parent / "canary"
    bomb = pickle.dumps(Bomb(canary))
    np.save("image.npy", np.zeros((1, 8, 8), np.uint8))
    assert run("export", a_trial(), "--format", "torch", "--out", "net") == 0
    told = json.loads(Path("net/model.json").read_text())
    torch.save(Bomb(canary), "saved.pt")
    with zipfile.ZipFile("net/model.pt2") as archive, zipfile.ZipFile("zipped.pt2", "w") as evil:
        for name in archive.namelist():
            evil.writestr(name, bomb if name.endswith("sample_inputs/model.pt") else archive.read(name))
    import hashlib

    for data in (bomb, Path("saved.pt").read_bytes(), Path("zipped.pt2").read_bytes()):
        for form, file in (("torch", "model.pt2"), ("onnx", "model.onnx"), ("packed", "model.packed")):
            folder = Path(f"evil-{form}")
            folder.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
            facts = told | {"format": form, "file": file, "sha256": hashlib.sha256(data).hexdigest()}
            (folder / "model.json").write_text(json.dumps(facts))
            refused(capsys, "predict", folder, "image.npy")
    np.save("objects.npy", np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    Path("raw.npy").write_bytes(bomb)
    Path("raw.png").write_bytes(bomb)
    for image in ("objects.npy", "raw.npy", "raw.png"):
        refused(capsys, "predict", "net", image)
    assert not canary.exists()


def test_a_batch_of_cifar_that_is_not_the_released_one_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in files.FILES["cifar10"]:
        place = tmp_path / "data" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    Path("study.yaml").write_text(SMALL.replace("name: digits", "name: cifar10"))
    assert "damaged or incomplete (md5" in refused(capsys, "sweep", "study.yaml", "--runner", "serial")
    assert not (tmp_path / "canary").exists()


def test_an_archive_that_is_not_the_released_one_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import utils

    (tmp_path / "text").write_text("escaped")

    asked: list[str] = []

    def fetched(url: str, filename: str | Path, **_: object) -> None:
        asked.append(url)
        with tarfile.open(filename, "w:gz") as archive:
            archive.add(tmp_path / "text", "../../escaped")

    monkeypatch.setattr(utils, "_urlretrieve", fetched)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    with pytest.raises(DataError, match="could not be downloaded"):
        files.download("cifar10", tmp_path / "a" / "b")
    assert asked
    assert {path.name for path in tmp_path.rglob("*")} == {"text", "a", "b", "cifar-10-python.tar.gz"}


OWN = """\
from pathlib import Path
Path(__file__).with_name("canary").touch()
def make(channels, classes): ...
"""


def test_code_that_a_study_names_is_not_imported_without_leave(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("evil.py").write_text(OWN)
    text = SMALL.replace("model: {name: resnet8, width: 4}", "model: {name: 'evil:make'}")
    Path("tiny.yaml").write_text(text)
    Path("results/tiny/_study.yaml").write_text(text)
    assert "--allow-code" in refused(capsys, "sweep", "tiny.yaml", "--runner", "serial")
    for words in (("plan", "tiny.yaml"), ("check", "tiny.yaml")):
        refused(capsys, *words)
    for words in (("status",), ("pareto", "results/tiny"), ("report", "results/tiny"), ("show", a_trial())):
        assert run(*words) == 0
    assert not Path("canary").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "", "a\0", "x" * 256, "..\\x", "\ud800"])
def test_names_that_lead_elsewhere_are_none(name: str) -> None:
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["tiny", "a.b", "..a", "größe", "x" * 255])
def test_names_that_stay_are_names(name: str) -> None:
    assert is_plain(name)


def poisoned(column: str, value: str) -> None:
    table = pq.read_table("results/tiny/trials.parquet")
    place = table.schema.get_field_index(column)
    table = table.set_column(place, column, pa.array([value] * len(table)))
    pq.write_table(table, "results/tiny/trials.parquet")


def test_a_table_leads_no_command_out_of_its_folder(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = a_trial()
    secret = swept.parent / "secret"
    secret.write_text("not for others")
    before = set(swept.parent.rglob("*"))
    poisoned("study", "../../escaped")
    assert "is no name of a file" in refused(capsys, "export", trial, "--format", "packed")
    for tool in ("tensorboard", "wandb"):
        assert "is no name of a file" in refused(capsys, "log", "results/tiny", "--to", tool, "--out", f"logs/{tool}")
    poisoned("study", "tiny")
    poisoned("stage_keys.evaluate", "../../../../secret")
    assert run("export", trial, "--format", "packed", "--out", "net") == 0  # by the plan, not by the table
    assert not any(b"not for others" in path.read_bytes() for path in Path("net").iterdir())
    poisoned("trial_id", "../../../escaped")
    for tool in ("tensorboard", "wandb"):
        assert "is no name of a file" in refused(capsys, "log", "results/tiny", "--to", tool, "--out", f"logs/{tool}")
    assert {path for path in set(swept.parent.rglob("*")) - before if swept not in path.parents} == set()


def test_a_ledger_leads_no_command_out_of_its_folder(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(Path("results"))
    record = next(iter(replay(layout.ledger).records.values()))
    writer = LedgerWriter(layout.ledger, "evil")
    writer.commit([replace(record, key="../../../secret")])
    writer.close()
    for words in (("plan", "tiny.yaml"), ("sweep", "tiny.yaml", "--runner", "serial"), ("show", a_trial())):
        assert run(*words) == 2
        assert "key is '../../../secret', which no sweep writes" in capsys.readouterr().err


def test_what_a_terminal_would_obey_is_shown_and_not_obeyed(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = a_trial()
    evil = "\x1b]0;owned\x07\x1b[2J[/][bold]\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe"
    for column in ("error", "hosts", "machine", "study"):
        poisoned(column, evil)
    capsys.readouterr()
    assert run("show", trial) == 0
    assert run("pareto", "results/tiny") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
    assert "[/][bold]" in shown.replace("\n", "")
    assert harmless("ä\n\t\x1b\x9b") == "ä\n\t\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def listening(process: psutil.Process) -> set[str]:
    found: set[str] = set()
    for one in (process, *process.children(recursive=True)):
        found |= {c.laddr.ip for c in one.net_connections(kind="inet") if c.status == "LISTEN"}
    return {ip.removeprefix("::ffff:") for ip in found}


def test_the_report_server_listens_on_this_machine_alone(swept: Path) -> None:
    with Server(LiveReport("results/tiny", {}), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mine = psutil.Process().net_connections(kind="inet")
        assert {c.laddr.ip for c in mine if c.status == "LISTEN" and c.laddr.port == server.server_port} == {
            "127.0.0.1"
        }
        server.shutdown()


RAY = """\
import sys
from orchestrator.runner.environment import quiet_ray
quiet_ray()
import ray
from orchestrator.runner import ray_host
with ray_host._ray(None, 1):
    @ray.remote
    class Worker:
        def ready(self): return True
    worker = Worker.remote()
    assert ray.get(worker.ready.remote())
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.ray
def test_a_ray_that_is_started_here_listens_on_this_machine_alone(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    found = listening(psutil.Process(process.pid))
    process.communicate("end\n", timeout=60)
    assert found == {"127.0.0.1"}


def test_an_override_of_bytes_that_are_no_text_is_refused(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not UTF-8 text" in refused(capsys, "check", "tiny.yaml", "--set", "data.folder=\udcff")


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted/Secret+One",
    "WANDB_API_KEY": "plantedsecrettwo",
    "MLFLOW_TRACKING_PASSWORD": "planted-secret-three",
    "MLFLOW_TRACKING_URI": "http://somebody:plantedsecretfour@127.0.0.1:9",
}
TELLS = """\
import os
def make(channels, classes):
    raise RuntimeError(f"cannot reach s3://me:plantedsecretfive@bucket with {os.environ['AWS_SECRET_ACCESS_KEY']}")
"""


def test_secrets_reach_no_file(tmp_path: Path) -> None:
    """Those of the environment, and those that an error of a user's own code tells."""
    command = Command(tmp_path, {**SECRETS, "OMP_NUM_THREADS": "1"})
    command("sweep", command.study(SMALL), "--runner", "serial")
    (tmp_path / "tells.py").write_text(TELLS)
    own = SMALL.replace("model: {name: resnet8, width: 4}", "model: {name: 'tells:make'}")
    own = own.replace("study: tiny", "study: own").partition("  compress:")[0] + "seeds: 1\n"
    command("sweep", command.study(own, "own.yaml"), "--runner", "serial", "--allow-code", expect=1)
    error = command.trials("own")["error"].iloc[0]
    assert "cannot reach s3://***@bucket with ***" in error
    printed = command("report", "results/tiny") + command("show", command.trials("own")["trial_id"].iloc[0])
    for tool in ("mlflow", "tensorboard", "wandb"):
        printed += command("log", "results/tiny", "--to", tool, "--out", f"logs/{tool}")
    (tmp_path / "tells.py").unlink()
    whole = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) + printed.encode()
    assert [name for name, secret in SECRETS.items() if secret.encode() in whole] == []
    assert re.search(rb"planted.?secret", whole, re.IGNORECASE) is None


def test_arguments_that_are_refused_are_told_without_their_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    uri = "s3://AKIAPLANTEDKEY:plantedsecretsix@bucket/x"
    for words in (["sweep", "tiny.yaml", uri], ["pareto", "--results", uri, "--nosuch", uri], [uri]):
        with pytest.raises(SystemExit):
            main(words)
        told = capsys.readouterr().err
        assert "***@bucket" in told
        assert "AKIAPLANTEDKEY" not in told
        assert "plantedsecretsix" not in told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AK:a/b/c@bucket/x", "s3://***@bucket/x"),
        ("s3://AK:plain@bucket/x and s3://b/c", "s3://***@bucket/x and s3://b/c"),
        ("http://host:8080/path", "http://host:8080/path"),
        ("https://h/x?AWSAccessKeyId=AKIA1&a=b", "https://h/x?AWSAccessKeyId=***&a=b"),
        ("the value /abcdefSEKRETvalue of it", "the value *** of it"),
        ("a token at /run/secrets/token", "a token at /run/secrets/token"),
    ],
)
def test_secrets_of_any_form_are_taken_out(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/abcdefSEKRETvalue")
    monkeypatch.setenv("API_TOKEN_FILE", "/run/secrets/token")
    assert redacted(text) == shown
