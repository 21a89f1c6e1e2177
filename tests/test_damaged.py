"""A truncated file is named by every command that needs it, and left out with `--skip-damaged` alone."""

import shutil
from pathlib import Path

import pytest
import report_tables as made
from conftest import refused
from report_tables import data_of

from orchestrator.cli import main
from orchestrator.errors import StoreError
from orchestrator.layout import Layout
from orchestrator.precision import Precisions
from orchestrator.report.serve import LiveReport
from orchestrator.watch import Follower
from trainables.config import TrialConfig


def cut(path: Path) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of tables of trials, one of them truncated."""
    folder = tmp_path / "parts"
    folder.mkdir()
    rows = made.rows()
    for name, some in (("whole", rows[:8]), ("torn", rows[8:])):
        shutil.copy(made.write(tmp_path / name, some, beside=False) / "trials.parquet", folder / f"{name}.parquet")
    cut(folder / "torn.parquet")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two studies, the table of one truncated."""
    for name in ("good", "torn"):
        made.write(tmp_path / "results" / name, made.rows())
    cut(tmp_path / "results" / "torn" / "trials.parquet")
    return tmp_path / "results"


@pytest.mark.parametrize(
    "words",
    [
        ("pareto", "{}"),
        ("compare", "{}", "{}"),
        ("report", "{}", "--out", "{}.html"),
        ("plot", "{}", "--kind", "front", "--out", "{}.png"),
        ("log", "{}", "--to", "tensorboard", "--out", "{}.logs"),
    ],
    ids=lambda words: words[0],
)
def test_commands_on_a_folder_of_parts(parts: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    asked = [word.format(parts) for word in words]
    told = refused(capsys, *asked)
    assert f"{parts}/torn.parquet: not a readable Parquet file" in told
    assert "--skip-damaged" in told
    assert main([*asked, "--skip-damaged"]) == 0
    assert f"warning: left out: {parts}/torn.parquet" in capsys.readouterr().err


def test_commands_on_a_results_root(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--results", str(root)]) == 2
    assert f"{root}/torn/trials.parquet: not a readable" in capsys.readouterr().out.replace("\n", "")
    assert main(["status", "--results", str(root), "--skip-damaged"]) == 0
    capsys.readouterr()
    told = refused(capsys, "show", "c0080", "--results", root)
    assert f"{root}/torn/trials.parquet" in told
    assert "--skip-damaged leaves it out" in told
    assert main(["show", "c0080", "--results", str(root), "--skip-damaged"]) == 0
    out, err = capsys.readouterr()
    assert f"warning: left out: {root}/torn/trials.parquet" in err
    assert "trial c0080 of made_up" in out


@pytest.mark.parametrize(("kind", "file"), [("time", "_stages.parquet"), ("curves", "_history.parquet")])
def test_a_picture_reads_what_it_draws_alone(
    root: Path, capsys: pytest.CaptureFixture[str], kind: str, file: str
) -> None:
    cut(root / "good" / file)
    out = root / "out.png"
    assert file in refused(capsys, "plot", root / "good", "--kind", kind, "--out", out)
    for other in {"time", "curves", "heatmap"} - {kind}:
        assert main(["plot", str(root / "good"), "--kind", other, "--out", str(out)]) == 0
    # Where the time went can be told of the trials alone, curves cannot.
    code = 0 if kind == "time" else 2
    assert main(["plot", str(root / "good"), "--kind", kind, "--out", str(out), "--skip-damaged"]) == code
    assert f"{file} cannot be read" in capsys.readouterr().err


def test_a_truncated_table_of_a_study_that_is_served_or_followed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = cut(root / "good" / "_stages.parquet")
    page = LiveReport(str(root / "good"), {}, skip_damaged=True).page().decode()
    assert "truncated" in data_of(page)["seconds"]["why"]
    assert data_of(page)["damaged"] == [f"left out: {data_of(page)['seconds']['why']}"]
    assert str(stages) in refused(capsys, "watch", root / "good")
    assert main(["watch", str(root / "good"), "--skip-damaged"]) == 3
    assert f"warning: left out: {stages}" in capsys.readouterr().err
    standing = Follower(Layout(root), "good", skip_damaged=True).look()
    assert not standing.has_table
    assert len(standing.left_out) == 1


@pytest.mark.parametrize("text", ['"x"', "[]", "3", '{"resnet8": "fp8"}', '{"resnet8": 3}', "{"])
def test_answers_about_precision_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "precision.json"
    file.write_text(text)
    config = TrialConfig.model_validate({"data": {"name": "cifar10"}, "model": {"name": "resnet8"}})
    with pytest.raises(StoreError, match=r"precision\.json: cannot be read .*; remove the file to probe again"):
        Precisions(file, "cpu", lambda _: None, may_probe=False)(config)
