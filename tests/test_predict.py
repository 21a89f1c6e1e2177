"""An exported network in use: from fresh processes, and wrongly."""

import csv
import hashlib
import io
import json
import math
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FORMATS, Command, facts, predictions, python, refused
from PIL import Image

from trainables.config import ModelConfig
from trainables.data.load import Dataset
from trainables.export.bundle import write_bundle
from trainables.export.facts import Format
from trainables.export.packed import PackedHeader, pack
from trainables.models.build import build
from trainables.models.compact import Compact
from trainables.sources import importable, sources_sha256


@pytest.fixture(autouse=True)
def _in_the_folder(swept: Command, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.chdir(swept.folder)


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


def test_top_gives_the_most_probable_classes_in_order(
    exported: dict[Format, Path], images: list[Path], expected: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predictions(capsys, exported["packed"], images[0], "--top", 3)
    assert [int(row["class"]) for row in rows] == np.argsort(-expected[0])[:3].tolist()
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert len(predictions(capsys, exported["packed"], images[0], "--top", 99)) == 10
    everything = predictions(capsys, exported["packed"], images[0], "--top", 10)
    assert sum(float(row["probability"]) for row in everything) == pytest.approx(1)


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
