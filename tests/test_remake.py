"""A network that was not kept is computed again where it is exported, and is the one that was measured."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, refused
from msgspec.structs import replace

from orchestrator.cli import main
from orchestrator.layout import Layout
from orchestrator.ledger import LedgerWriter, replay

STUDY = TINY.partition("axes:")[0] + "objectives: {accuracy: max, compression: max}\nartifacts: {keep: parents}\n"


def run(*words: object) -> int:
    return main(list(map(str, words)))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    (folder / "tiny.yaml").write_text(STUDY)
    assert run("sweep", folder / "tiny.yaml", "--runner", "serial", "--results", folder / "results") == 0
    return folder


@pytest.fixture
def trial(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cell of a copy of the study, which is the working folder."""
    shutil.copytree(once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    df = pd.read_parquet("results/tiny")
    return str(df[df["role"] == "cell"]["trial_id"].iloc[0])


def layout() -> Layout:
    return Layout(Path("results"))


def kinds() -> list[str]:
    records = replay(layout().ledger).records
    return sorted(records[one.key].kind for one in layout().artifacts.keys())


def test_an_evicted_network_is_computed_again_bit_for_bit(trial: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert kinds() == ["train"]
    ledgers = {path: path.read_bytes() for path in Path("results/.store/ledger").iterdir()}
    table = Path("results/tiny/trials.parquet").read_bytes()
    assert run("export", trial, "--format", "packed", "--out", "net") == 0
    assert f"trial {trial} of tiny: its packed file was not kept; 2 stages of" in capsys.readouterr().err
    assert kinds() == ["compress", "evaluate", "train"]
    row = pd.read_parquet("results/tiny").set_index("trial_id").loc[trial]
    record = replay(layout().ledger).records[str(row["stage_keys.evaluate"])]
    assert layout().artifacts.read(record.key, record.artifact_sha256) == Path("net/model.packed").read_bytes()
    assert {path: path.read_bytes() for path in Path("results/.store/ledger").iterdir()} == ledgers
    assert Path("results/tiny/trials.parquet").read_bytes() == table
    assert run("export", trial, "--format", "packed", "--out", "again") == 0
    assert "not kept" not in capsys.readouterr().err


def test_it_begins_with_the_last_output_that_is_whole(trial: str, capsys: pytest.CaptureFixture[str]) -> None:
    for one in layout().artifacts.keys():
        layout().artifacts.write(one.key, b"damaged")
    assert run("export", trial, "--format", "packed", "--out", "net") == 0
    assert "3 stages of" in capsys.readouterr().err


def test_another_network_is_not_passed_off_as_the_one_that_was_measured(
    trial: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = pd.read_parquet("results/tiny").set_index("trial_id").loc[trial, "stage_keys.compress"]
    record = replay(layout().ledger).records[str(key)]
    writer = LedgerWriter(layout().ledger, "later")
    elsewhere = replace(record, artifact_sha256="0" * 64, machine="riscv", finished_at=record.finished_at + 1)
    writer.commit([elsewhere])
    writer.close()
    told = refused(capsys, "export", trial, "--format", "packed", "--out", "net")
    assert (
        "stage compress, computed again, has other bits than the network that its row was measured on, by riscv" in told
    )
    assert not Path("net").exists()
    assert kinds() == ["train"]


def test_a_study_that_has_changed_since_is_told(trial: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = Path("results/tiny/_study.yaml")
    study.write_text(study.read_text().replace('"pfr": 0.5', '"pfr": 0.25'))
    assert "no longer has this trial; sweep the study again" in refused(
        capsys, "export", trial, "--format", "packed", "--out", "net"
    )
    study.write_text("study: tiny\n")
    told = refused(capsys, "export", trial, "--format", "packed", "--out", "net")
    assert "its packed file is gone, and its study cannot be planned" in told
