"""Studies of a person's own images, from the study file to the exported network."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import predictions, refused
from image_folders import grey, write_classes, write_listed
from PIL import Image
from study_files import faults

from orchestrator.cli import main
from orchestrator.errors import PlanError
from orchestrator.folders import ImagesOf
from orchestrator.plan import plan
from orchestrator.spec.load import load_spec
from trainables.config import DataConfig
from trainables.data.load import load

STUDY = """\
study: own
base:
  data: {name: imagefolder, folder: digits, image_size: 8, channels: 1, augment: none}
  model: {name: resnet8, width: 4}
  train: {epochs: 4, batch_size: 32}
objectives: {accuracy: max}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 300 digits as files and a study of them, swept once."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("own")
    data = load(DataConfig(name="digits", image_size=8, train_size=300, augment="none"), 0, root)
    for label in range(10):
        (root / "data/digits" / f"no {label}").mkdir(parents=True)
    for index, (image, label) in enumerate(zip(data.train.images.numpy(), data.train.labels.tolist(), strict=True)):
        Image.fromarray(image[0]).save(root / "data/digits" / f"no {label}" / f"{index}.png")
    (root / "own.yaml").write_text(STUDY)
    assert run(root, "sweep", "--runner", "serial") == 0
    return root


def run(root: Path, command: str, *more: str) -> int:
    words = [command, root / "own.yaml", "--data-root", root / "data", "--results", root / "results", *more]
    return main(list(map(str, words)))


def trials(root: Path, study: str = "own") -> pd.DataFrame:
    return pd.read_parquet(root / "results" / study)


def test_the_table_says_which_images_and_the_network_has_learnt(root: Path) -> None:
    row = trials(root).iloc[0]
    assert row["data.folder"] == "digits"
    assert row["data.classes"] == ",".join(f"no {label}" for label in range(10))
    assert (row["data.train_images"], row["data.test_images"], row["test_images"]) == (218, 52, 52)
    assert row["status"] == "complete"
    assert row["accuracy"] > 0.5
    assert len(row["data.fingerprint"]) == 64


def test_equal_images_elsewhere_are_the_same_stages(root: Path) -> None:
    shutil.copytree(root / "data/digits", root / "data/moved")
    override = ("--set", "base.data.folder=moved", "--set", "study=moved")
    assert run(root, "sweep", "--runner", "serial", *override) == 0
    first, second = trials(root), trials(root, "moved")
    names = ["trial_id", "finished_at", "accuracy"]
    assert first[names].equals(second[names])  # nothing ran again
    assert set(second["data.folder"]) == {"moved"}
    shutil.rmtree(root / "results" / "moved")
    grey(77).save(root / "data/moved/no 3/new.png")
    spec = load_spec(str(root / "own.yaml"), ("base.data.folder=moved",))
    planned = plan(spec, lambda _: "fp32", images_of=ImagesOf("own", root / "data"))
    assert not {trial.id for trial in planned.trials} & set(second["trial_id"])


def test_a_study_is_checked_against_its_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "check") == 0
    assert "no fault; 1 cell" in capsys.readouterr().out
    where = ("--data-root", root / "nowhere", "--results", root / "results")
    for command in ("check", "plan", "sweep"):
        told = refused(capsys, command, root / "own.yaml", *where)
        assert f"{root / 'nowhere' / 'digits'}: missing" in told
        assert "--data-root" in told
    told = refused(
        capsys, "check", root / "own.yaml", "--data-root", root / "data", "--set", "base.data.train_size=999"
    )
    assert "data.train_size 999 is more than the 218 of imagefolder" in told


def test_every_cell_is_checked_against_its_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "al.yaml").write_text(STUDY + "axes: {select.budget: [60, 100, 5000]}\n")
    told = refused(capsys, "check", root / "al.yaml", "--data-root", root / "data", "--set", "base.select.initial=60")
    assert "select.budget 5000 is more than the 196 training images of the pool" in told


def test_without_leave_to_look_a_folder_is_refused(root: Path) -> None:
    with pytest.raises(PlanError, match=r"data\.folder digits"):
        plan(load_spec(str(root / "own.yaml")), lambda _: "fp32")


def test_images_without_label_are_refused_before_anything_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_listed(root / "data/part", {"0.png": "a", "1.png": "b"}, 30)
    (root / "part.yaml").write_text(STUDY.replace("folder: digits", "folder: part, labels: labels.csv"))
    told = refused(capsys, "sweep", root / "part.yaml", "--data-root", root / "data", "--results", root / "results")
    assert "28 of 30 images have no label in labels.csv" in told
    assert not (root / "results" / "part").exists()


def test_images_that_cannot_be_decoded_are_refused_before_anything_runs(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_classes(root / "data/broken", {"a": 60, "b": 60})
    (folder / "a/0.png").write_bytes(b"no image")
    (root / "broken.yaml").write_text(STUDY.replace("own", "broken").replace("digits", "broken"))
    told = refused(capsys, "sweep", root / "broken.yaml", "--data-root", root / "data", "--results", root / "results")
    assert f"{folder / 'a/0.png'}: cannot be read as an image" in told
    assert not (root / "results" / "broken").exists()


def test_an_export_knows_the_names_of_the_classes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = trials(root).iloc[0]["trial_id"]
    where = ("--data-root", root / "data", "--results", root / "results", "--out", root / "exported")
    assert main(["export", trial, "--format", "packed", *map(str, where)]) == 0
    found = predictions(capsys, root / "exported", root / "data/digits/no 0")
    assert {row["name"] for row in found} <= {f"no {label}" for label in range(10)}
    right = sum(row["name"] == "no 0" for row in found)
    assert right > len(found) / 2


def test_faults_of_a_study_file_are_told(tmp_path: Path) -> None:
    text = STUDY.replace("channels: 1", "channels: 2, classes: [1, b]").replace("folder: digits, ", "")
    found = faults(tmp_path, text)
    assert any("base.data.channels: 2 is neither 1 (grey) nor 3 (colours)" in fault for fault in found), found
    assert any("base.data.classes: element 1: 1 is a number; text is wanted" in fault for fault in found), found
    found = faults(tmp_path, STUDY.replace("folder: digits, ", ""))
    assert any("data.folder is required by an imagefolder" in fault for fault in found), found
    found = faults(tmp_path, STUDY.replace("name: imagefolder", "name: mnist"))
    assert any("data.folder has no effect on mnist" in fault for fault in found), found
    found = faults(tmp_path, STUDY.replace("folder: digits", "folder: 3, fingerprint: a"))
    assert any("base.data.folder: 3 is a number; text or null is wanted" in fault for fault in found), found
    assert any("base.data.fingerprint: is filled in by the plan; remove it" in fault for fault in found), found
