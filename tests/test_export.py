"""A finished trial as a folder of its own, checked before it is written, and what cannot be exported."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
from conftest import FORMATS, Command, facts, predictions, refused

from orchestrator.cli import main
from trainables.data.classes import CLASS_NAMES
from trainables.export.facts import Format


@pytest.fixture(autouse=True)
def _in_the_folder(swept: Command, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.chdir(swept.folder)


@pytest.mark.parametrize("form", FORMATS)
def test_the_card_tells_what_was_measured_and_the_file_is_the_one_it_describes(
    form: Format, exported: dict[Format, Path], swept: Command, trial: str
) -> None:
    folder = exported[form]
    told = facts(folder)
    row = swept.trials().set_index("trial_id").loc[trial]
    assert hashlib.sha256((folder / told.file).read_bytes()).hexdigest() == told.sha256
    assert told.measured["accuracy"] == row["accuracy"]
    assert told.measured["packed_bytes"] == row["packed_bytes"]
    assert told.config["compress.threshold"] == row["compress.threshold"]
    assert told.class_names == CLASS_NAMES["digits"]
    assert told.int8 == (form == "onnx")
    assert [check.runtime for check in told.checks] == {"onnx": ["onnxruntime", "openvino"]}.get(form, ["torch"])
    for check in told.checks:
        assert check.images == 360
        assert check.accuracy == pytest.approx(row["accuracy"], abs=0.02 if form == "onnx" else 1e-9)
    card = (folder / "README.md").read_text()
    assert told.sha256 in card
    assert f"{100 * row['accuracy']:.2f} %" in card
    assert f"| compress.threshold | {row['compress.threshold']} |" in card
    loader = (folder / "predict.py").read_text()
    assert loader.count("\n") <= 60
    assert str(swept.folder) not in card + loader + (folder / "model.json").read_text()


def test_a_packed_export_is_the_file_that_was_measured(exported: dict[Format, Path], swept: Command) -> None:
    model = exported["packed"] / "model.packed"
    assert model.stat().st_size in set(swept.trials()["packed_bytes"])
    assert facts(exported["packed"]).sha256 == facts(exported["onnx"]).artifact_sha256


def test_one_bit_activations_run_on_the_packed_runtime(
    swept: Command, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    df = swept.trials()
    trial = df[(df["role"] == "cell") & (df["compress.activations"] == "sign")]["trial_id"].iloc[0]
    assert main(["export", trial, "--format", "packed"]) == 0
    folder = Path(f"tiny-{trial}-packed")
    assert "in packed: the same class on 100.00 % of 360 test images" in capsys.readouterr().out
    assert [check.runtime for check in facts(folder).checks] == ["packed", "torch"]
    fast, plain = (predictions(capsys, folder, *images, "--runtime", name) for name in ("packed", "torch"))
    assert [row["class"] for row in fast] == [row["class"] for row in plain]
    assert main(["predict", str(folder), str(images[0])]) == 0
    assert "1 image, run by packed" in capsys.readouterr().out


def test_a_baseline_is_exported_too(swept: Command, capsys: pytest.CaptureFixture[str]) -> None:
    df = swept.trials()
    dense = df[df["baseline"] == "dense"]["trial_id"].iloc[0]
    assert main(["export", dense, "--format", "onnx"]) == 0
    folder = Path(f"tiny-{dense}-onnx")
    assert not facts(folder).int8
    assert facts(folder).checks[0].agreement == 1
    assert "not compressed" in (folder / "README.md").read_text()


def test_the_same_export_again_is_welcome_and_another_is_not(
    exported: dict[Format, Path], swept: Command, trial: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported["onnx"], folder)
    (folder / "notes.txt").write_text("mine")
    words = ("export", trial[:8], "--format", "packed", "--out", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert f"holds an export of trial {trial} as onnx" in refused(capsys, *words)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for extra in ("--force",), ():
        assert main([*map(str, words), *extra]) == 0
        names = {path.name for path in folder.iterdir()}
        assert names == {"model.packed", "model.json", "README.md", "predict.py", "notes.txt"}
    assert list(tmp_path.iterdir()) == [folder]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    assert "something that is no export" in refused(capsys, *words[:-1], tmp_path / "other")


def test_an_export_that_differs_fails_loudly_and_leaves_nothing(
    trial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainables.data.samples import CHECKED_IMAGES
    from trainables.runtimes import deployed

    truth = deployed.Deployed.logits
    monkeypatch.setattr(deployed.Deployed, "logits", lambda self, pixels: truth(self, pixels)[:, ::-1].copy())
    told = refused(capsys, "export", trial, "--format", "packed", "--out", tmp_path / "x", code=1)
    assert "model.packed in torch: the export predicts another class for" in told
    assert "differ by up to" in told
    assert list(tmp_path.iterdir()) == []
    assert CHECKED_IMAGES >= 360


def test_what_cannot_be_exported_is_told(
    swept: Command, trial: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no trial of" in refused(capsys, "export", "zzz", "--format", "packed")
    results = tmp_path / "results"
    shutil.copytree(swept.folder / "results", results)
    df = swept.trials()
    df.loc[df["trial_id"] == trial, "status"] = "failed"
    df.to_parquet(results / "tiny" / "trials.parquet")
    told = refused(capsys, "export", trial, "--format", "onnx", "--results", results)
    assert "is failed; only a complete trial can be exported as onnx; packed and torch are possible" in told
    assert "which trial?" in refused(capsys, "export", "", "--format", "packed")
    words = ("export", trial, "--format", "packed", "--out", tmp_path / "x", "--results", results)
    assert main([str(word) for word in words]) == 0
    assert f"{100 * facts(tmp_path / 'x').measured['accuracy']:.2f} %" in (tmp_path / "x" / "README.md").read_text()


def test_onnx_without_its_packages_is_refused_in_one_line(
    trial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "trainables.export.onnx", "trainables.export.qdq"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    told = refused(capsys, "export", trial, "--format", "onnx", "--out", tmp_path / "x")
    assert 'pip install "sweep-orchestrator[deploy]"' in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_are_one_a_class() -> None:
    from trainables.data_config import DATASETS

    assert {name: len(names) for name, names in CLASS_NAMES.items()} == {k: v.classes for k, v in DATASETS.items()}
    for names in CLASS_NAMES.values():
        assert len(set(names)) == len(names)
    assert list(CLASS_NAMES["cifar100"]) == sorted(CLASS_NAMES["cifar100"])
    assert list(CLASS_NAMES["cifar10"]) == sorted(CLASS_NAMES["cifar10"])
