"""A finished trial as a folder of its own, and its network in use: from fresh processes, and wrongly."""

import csv
import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Command
from PIL import Image

from orchestrator.cli import main
from trainables.config import DataConfig, ModelConfig
from trainables.data.classes import CLASS_NAMES
from trainables.data.load import Dataset, load, normalise
from trainables.data.pictures import Wanted, read_pictures
from trainables.export.bundle import write_bundle
from trainables.export.facts import Facts, Format
from trainables.export.packed import PackedHeader, pack, unpack
from trainables.models.build import build
from trainables.models.compact import Compact
from trainables.sources import importable, sources_sha256

SIGNS = (
    TINY.replace("resnet8, width: 4", "resnet8, width: 4, block: bn_first")
    .replace("  compress.pfr: [0, 0.5]\n  compress.threshold: [0.5, 0.7]", "  compress.activations: [float, sign]")
    .replace("seeds: 2", "seeds: 1")
    .replace("epochs: 2", "epochs: 10")  # so that rounding to int8 finds few images between two classes
)
FORMATS: tuple[Format, ...] = ("packed", "onnx", "torch")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = Command(tmp_path_factory.mktemp("export"), {"OMP_NUM_THREADS": "1"})
    command("sweep", command.study(SIGNS), "--runner", "serial")
    return command


@pytest.fixture(scope="module")
def trial(swept: Command) -> str:
    """The cell with one-bit weights and fp32 activations."""
    df = swept.trials()
    return df[(df["role"] == "cell") & (df["compress.activations"] == "float")]["trial_id"].iloc[0]


@pytest.fixture(scope="module")
def data() -> Dataset:
    config = DataConfig(name="digits", image_size=8, train_size=300, augment="none")
    return load(config, 0, Path())


@pytest.fixture(autouse=True)
def _in_the_folder(swept: Command, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.chdir(swept.folder)


@pytest.fixture(scope="module")
def exported(swept: Command, trial: str) -> dict[Format, Path]:
    """The trial in each format; made once, read by many tests, written to by none."""
    torch.set_num_threads(1)
    folders: dict[Format, Path] = {}
    for form in FORMATS:
        folders[form] = swept.folder / f"{form}-folder"
        words = ("export", trial, "--format", form, "--out", folders[form], "--results", swept.folder / "results")
        assert main([str(word) for word in words]) == 0
    return folders


@pytest.fixture(scope="module")
def images(swept: Command, data: Dataset) -> list[Path]:
    folder = swept.folder / "digits"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(data.test.images[index, 0].numpy()).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(swept: Command, trial: str, data: Dataset) -> np.ndarray:
    """Probabilities of the test images by the network of the trial, straight from the store."""
    df = swept.trials()
    key = df[df["trial_id"] == trial]["stage_keys.evaluate"].iloc[0]
    network, _ = unpack((swept.folder / "results/.store/artifacts" / key).read_bytes())
    with torch.inference_mode():
        return network.model(normalise(data.test.images, data)).softmax(1).numpy()


def python(*words: object, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def predictions(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["predict", *map(str, words), "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def refused(capsys: pytest.CaptureFixture[str], *words: object, code: int = 2) -> str:
    capsys.readouterr()
    assert main(list(map(str, words))) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def facts(folder: Path) -> Facts:
    return Facts.model_validate_json((folder / "model.json").read_bytes())


@pytest.mark.parametrize("form", FORMATS)
def test_the_loader_of_a_folder_that_was_moved_finds_the_classes_that_the_network_does(
    form: Format, exported: dict[Format, Path], images: list[Path], expected: np.ndarray, tmp_path: Path
) -> None:
    moved = tmp_path / "somewhere else"
    shutil.copytree(exported[form], moved)
    (tmp_path / "working").mkdir()
    lines = python(moved / "predict.py", *images, cwd=tmp_path / "working").splitlines()
    rows = list(csv.reader(lines))
    assert [row[0] for row in rows] == [str(path) for path in images]
    assert [int(row[1]) for row in rows] == expected[: len(images)].argmax(1).tolist()
    assert [float(row[3]) for row in rows] == pytest.approx(
        expected[: len(images)].max(1).tolist(), abs=0.1 if form == "onnx" else 1e-4
    )


@pytest.mark.parametrize("form", FORMATS)
def test_predict_gives_the_probabilities_of_the_network(
    form: Format,
    exported: dict[Format, Path],
    expected: np.ndarray,
    data: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "test.npy", data.test.images[:, 0].numpy())
    rows = predictions(capsys, exported[form], tmp_path / "test.npy")
    assert [row["path"] for row in rows][:2] == [f"{tmp_path}/test.npy[0]", f"{tmp_path}/test.npy[1]"]
    assert len(rows) == len(expected) == 360
    found = np.array([int(row["class"]) for row in rows])
    tolerance = 0.1 if form == "onnx" else 1e-5
    assert (found == expected.argmax(1)).mean() >= (0.98 if form == "onnx" else 1)
    shares = np.array([float(row["probability"]) for row in rows])
    np.testing.assert_allclose(shares, expected.max(1), atol=tolerance)


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


def test_a_bare_packed_file_describes_itself_and_needs_no_results(
    exported: dict[Format, Path], images: list[Path], tmp_path: Path
) -> None:
    shutil.copy(exported["packed"] / "model.packed", tmp_path / "x")
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        f"code = main(['predict', 'x', {str(images[0])!r}, '--json'])\n"
        "sys.stdout.write(' '.join(sys.modules))\nsys.exit(code)"
    )
    line, _, loaded = python("-c", code, cwd=tmp_path).partition("\n")
    assert list(json.loads(line)) == ["path", "rank", "class", "name", "probability"]
    modules = set(loaded.split())
    training = {name for name in modules if name.startswith("trainables.training.")}
    assert "torch" in modules
    # the builders of networks share the project's random streams
    assert training <= {"trainables.training.randomness"}
    assert not {name for name in modules if name.startswith(("trainables.methods", "trainables.stages", "ray"))}
    assert not modules & {"pandas", "pyarrow"}


def test_an_onnx_file_is_used_without_torch(exported: dict[Format, Path], images: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        f"code = main(['predict', {str(exported['onnx'] / 'model.onnx')!r}, {str(images[0])!r}])\n"
        "sys.stdout.write(' '.join(sys.modules))\nsys.exit(code)"
    )
    modules = set(python("-c", code, cwd=tmp_path).split())
    assert "onnxruntime" in modules
    assert not modules & {"torch", "trainables.training", "trainables.models", "pandas"}


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


def test_top_gives_the_most_probable_classes_in_order(
    exported: dict[Format, Path], images: list[Path], expected: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predictions(capsys, exported["packed"], images[0], "--top", 3)
    assert [int(row["class"]) for row in rows] == np.argsort(-expected[0])[:3].tolist()
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert len(predictions(capsys, exported["packed"], images[0], "--top", 99)) == 10
    everything = predictions(capsys, exported["packed"], images[0], "--top", 10)
    assert sum(float(row["probability"]) for row in everything) == pytest.approx(1)


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
    key = swept.trials().set_index("trial_id").loc[trial, "stage_keys.evaluate"]
    artifact = results / ".store" / "artifacts" / str(key)
    artifact.write_bytes(artifact.read_bytes()[:-1])
    told = refused(capsys, "export", trial, "--format", "packed", "--results", results)
    assert "gone or damaged; sweep the study again" in told
    df = swept.trials()
    df.loc[df["trial_id"] == trial, "status"] = "failed"
    df.to_parquet(results / "tiny" / "trials.parquet")
    told = refused(capsys, "export", trial, "--format", "onnx", "--results", results)
    assert "is failed; only a complete trial can be exported as onnx; packed and torch are possible" in told
    assert "which trial?" in refused(capsys, "export", "", "--format", "packed")
    shutil.copy(swept.folder / "results/.store/artifacts" / str(key), artifact)
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


def test_every_bad_image_is_named_at_once(
    exported: dict[Format, Path], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "wide.png")
    (tmp_path / "junk.png").write_bytes(b"no image")
    cut = images[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8), np.uint8))
    np.save(tmp_path / "one.npy", np.zeros((8, 8), np.uint8))
    np.save(tmp_path / "first.npy", np.zeros((2, 1, 8, 8), np.uint8))
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 8)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    names = ["wide.png", "junk.png", "cut.png", "deep.png", "empty", "floats.npy", "objects.npy", "absent.png"]
    names += ["none.npy", "one.npy", "first.npy"]
    told = refused(capsys, "predict", exported["packed"], images[0], *(tmp_path / name for name in names))
    for line, name in zip(told.splitlines(), names, strict=True):
        assert line.startswith(f"{tmp_path / name}: "), line
    assert "20 x 10 pixels; the network takes 8 x 8 (--resize scales images)" in told
    assert "more than 8 bits a channel" in told
    assert "float64 of shape (2, 8, 8); wanted is uint8" in told
    assert "no such file or directory" in told
    assert "holds no images" in told
    assert "save x[None]" in told
    assert "channels last is wanted" in told


@pytest.mark.parametrize("form", FORMATS)
def test_a_loader_refuses_in_one_line_what_it_cannot_read(
    form: Format, exported: dict[Format, Path], tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    Image.new("L", (20, 10)).save(tmp_path / "wide.png")
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "folder").mkdir()
    loader = exported[form] / "predict.py"
    for name in ("deep.png", "wide.png", "text.txt", "folder", "absent.png"):
        told = python(loader, name, cwd=tmp_path, code=2)
        assert told.startswith(f"{name}: ")
        assert told.count("\n") == 1
    assert "usage:" in python(loader, cwd=tmp_path, code=2)


def test_images_of_a_folder_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["0.png", "1.png", "2.png", "10.png", "a9.png", "a10.png", "b2/x.png", "b11/x.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert list(read_pictures([tmp_path], Wanted(1, 8)).names) == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("form", ["onnx", "torch"])
@pytest.mark.parametrize("change", ["channels", "classes"])
def test_a_description_that_does_not_fit_the_network_is_refused_in_one_line(
    form: Format, change: str, exported: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported[form], folder)
    told = json.loads((folder / "model.json").read_text())
    three = {"input": told["input"] | {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}}
    forged = told | {"channels": three, "classes": {"classes": 11, "class_names": None}}[change]
    (folder / "model.json").write_text(json.dumps(forged))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    message = refused(capsys, "predict", folder, tmp_path / "x.png")
    assert "the network does not take images" in message
    assert message.count("\n") == 1


def test_resize_and_colours(
    exported: dict[Format, Path], data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image.fromarray(data.test.images[0, 0].numpy())
    image.save(tmp_path / "a.png")
    image.convert("RGB").save(tmp_path / "b.png")
    image.convert("RGBA").save(tmp_path / "c.png")
    image.convert("P").save(tmp_path / "d.png", transparency=b"\x00\x80")
    image.resize((24, 24), Image.Resampling.NEAREST).save(tmp_path / "e.png")
    np.save(tmp_path / "f.npy", np.asarray(image.convert("RGB"))[None])
    rows = predictions(capsys, exported["packed"], tmp_path, tmp_path / "f.npy", "--resize")
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png", "d.png", "e.png", "f.npy[0]"]
    same = [row for row in rows if not row["path"].endswith("e.png")]
    assert len({row["probability"] for row in same}) == 1
    assert len({row["class"] for row in rows}) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_file_that_was_changed_is_refused_in_one_line(
    form: Format, exported: dict[Format, Path], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported[form], folder)
    model = folder / facts(folder).file
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    told = refused(capsys, "predict", folder, images[0])
    assert "truncated or changed: its SHA-256 is not the one in model.json" in told
    assert told.count("\n") == 1
    model.unlink()
    assert "no such file" in refused(capsys, "predict", folder, images[0]).lower()


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_model_file_that_is_garbage_is_refused_in_one_line(
    form: Format, exported: dict[Format, Path], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported[form], folder)
    told = json.loads((folder / "model.json").read_text())
    (folder / told["file"]).write_bytes(b"garbage")
    (folder / "model.json").write_text(json.dumps(told | {"sha256": hashlib.sha256(b"garbage").hexdigest()}))
    for runtime in {"onnx": ("auto", "openvino", "onnxruntime"), "torch": ("auto",)}[form]:
        assert refused(capsys, "predict", folder, images[0], "--runtime", runtime).count("\n") == 1


def broken_files(packed: bytes) -> Iterator[tuple[bytes, str]]:
    yield packed[:-3], "truncated or was changed"
    yield packed[:40] + b"\x00" + packed[41:], "truncated or was changed"
    yield packed[:4] + b"\x63\x00" + packed[6:], "version 99"
    yield b"", "not a packed file"
    yield b"PKNG" + packed[4:], "not a packed file"
    yield packed[:10], "too short: it ends after 10 bytes"


def test_a_bare_packed_file_that_is_broken_is_refused_in_one_line(
    exported: dict[Format, Path], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "some.packed"
    for content, reason in broken_files((exported["packed"] / "model.packed").read_bytes()):
        bare.write_bytes(content)
        told = refused(capsys, "predict", bare, images[0])
        assert reason in told
        assert told.count("\n") == 1


def test_folders_that_are_no_export_are_told_apart(
    exported: dict[Format, Path], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = images[0]
    assert "is no exported folder" in refused(capsys, "predict", tmp_path, image)
    assert "cannot be read" in refused(capsys, "predict", tmp_path / "absent", image)
    lone = tmp_path / "model.onnx"
    shutil.copy(exported["onnx"] / "model.onnx", lone)
    assert "neither a packed file nor one of an exported folder" in refused(capsys, "predict", lone, image)
    told = json.loads((exported["onnx"] / "model.json").read_text())
    for change, reason in (
        ({"file": "../../etc/passwd"}, "of that format the file is 'model.onnx'"),
        ({"format": "packed"}, "format 'packed' and file 'model.onnx' contradict each other"),
        ({"facts_version": 2}, "a later version wrote it"),
        ({"format": "pickle"}, "format"),
        ({"input": told["input"] | {"std": [0]}}, "greater than 0"),
        ({"input": told["input"] | {"mean": [math.nan]}}, "finite"),
        ({"input": told["input"] | {"mean": [0.5, 0.5]}}, "1 channels need as many means"),
        ({"class_names": ["\x1b[31m", *told["class_names"][1:]]}, "control characters"),
        ({"class_names": told["class_names"][1:]}, "9 names for 10 classes"),
    ):
        (tmp_path / "model.json").write_text(json.dumps(told | change))
        assert reason in refused(capsys, "predict", tmp_path, image)
    (tmp_path / "model.json").write_text("{")
    assert "damaged" in refused(capsys, "predict", tmp_path, image)
    assert "runtime torch does not run a file of format onnx" in refused(
        capsys, "predict", exported["onnx"], image, "--runtime", "torch"
    )
    assert "activations of 1 or 2 bits" in refused(capsys, "predict", exported["packed"], image, "--runtime", "packed")


def rewritten(program: bytes, name: str, change: bytes, extra: str = "") -> bytes:
    """The archive with another content of the entry that ends in `name`, and an entry more."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as old, zipfile.ZipFile(written, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            new.writestr(entry, change if entry.endswith(name) else content)
        if extra:
            new.writestr(extra, b"x")
    return written.getvalue()


def test_a_program_holds_no_pickle_and_one_that_does_is_not_loaded(
    exported: dict[Format, Path], images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported["torch"], folder)
    program = (folder / "model.pt2").read_bytes()
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        weights = archive.read("archive/data/weights/model_weights_config.json")
        graph = archive.read("archive/models/model.json")
        assert archive.getinfo("archive/data/sample_inputs/model.pt").file_size == 0
    assert b'"use_pickle": true' not in weights
    assert b".py" not in graph
    told = json.loads((folder / "model.json").read_text())
    shape = json.loads(graph)
    shape["graph_module"]["graph"]["nodes"][0]["target"] = "torch.load"
    evil = graph.replace(b"integer=True)", b"integer=True) + __import__('os').getpid()", 1)
    assert evil != graph
    for changed, reason in (
        (rewritten(program, "model_weights_config.json", weights.replace(b"false", b"true")), "pickled objects"),
        (rewritten(program, "sample_inputs/model.pt", b"pickle"), "pickled objects"),
        (rewritten(program, "models/model.json", json.dumps(shape).encode()), "the operation 'torch.load'"),
        (rewritten(program, "models/model.json", evil), "the shape"),
        (rewritten(program, "-", b"", "archive/data/constants/opaque_obj_0"), "the entry"),
    ):
        (folder / "model.pt2").write_bytes(changed)
        (folder / "model.json").write_text(json.dumps(told | {"sha256": hashlib.sha256(changed).hexdigest()}))
        message = refused(capsys, "predict", folder, images[0])
        assert reason in message
        assert "could run code" in message


OWN = """\
from torch import nn

def make(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, classes))
"""


def test_a_network_of_ones_own_code_runs_only_where_that_is_allowed(
    exported: dict[Format, Path],
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_network.py").write_text(OWN)
    with importable(tmp_path):
        name = "own_network:make"
        config = ModelConfig(name=name, code_sha256=sources_sha256(name))
        model = build(config, 1, 10, allow_code=True).eval()
    monkeypatch.delitem(sys.modules, "own_network")
    source = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=source)
    header = PackedHeader(model=config, channels=1, classes=10, image_size=8, mean=(0.5,), std=(0.5,))
    Path("own.packed").write_bytes(pack(Compact(model), header))
    assert "--allow-code" in refused(capsys, "predict", "own.packed", images[0])
    assert "own_network" not in sys.modules
    rows = predictions(capsys, "own.packed", *images, "--allow-code")
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in images])).unsqueeze(1)
    with torch.inference_mode():
        expected = model((pixels / 255 - 0.5) / 0.5).argmax(1)
    assert [int(row["class"]) for row in rows] == expected.tolist()

    monkeypatch.delitem(sys.modules, "own_network")
    folder = tmp_path / "folder"
    folder.mkdir()
    packed = Path("own.packed").read_bytes()
    model_sha256 = hashlib.sha256(packed).hexdigest()
    own = facts(exported["packed"]).model_copy(
        update={"sha256": model_sha256, "config": facts(exported["packed"]).config | {"model.name": name}}
    )
    write_bundle(folder, own, packed, lambda _: (), force=True)
    assert "--allow-code" in python(folder / "predict.py", images[0], cwd=folder, code=2)
    assert "no module own_network" in python(folder / "predict.py", "--allow-code", images[0], cwd=folder, code=2)
    told = (folder / "README.md").read_text()
    assert "predict.py image.png --allow-code" in told
    assert "the module `own_network`" in told
    by_working_folder = python(folder / "predict.py", "--allow-code", *images, cwd=tmp_path)
    Path("own_network.py").rename(folder / "own_network.py")
    assert python(folder / "predict.py", "--allow-code", *images, cwd=tmp_path) == by_working_folder
    assert [int(row[1]) for row in csv.reader(by_working_folder.splitlines())] == expected.tolist()


def test_names_of_classes_are_one_a_class() -> None:
    from trainables.config import DATASETS

    assert {name: len(names) for name, names in CLASS_NAMES.items()} == {k: v.classes for k, v in DATASETS.items()}
    for names in CLASS_NAMES.values():
        assert len(set(names)) == len(names)
    assert list(CLASS_NAMES["cifar100"]) == sorted(CLASS_NAMES["cifar100"])
    assert list(CLASS_NAMES["cifar10"]) == sorted(CLASS_NAMES["cifar10"])
