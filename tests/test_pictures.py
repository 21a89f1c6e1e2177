"""Image files and arrays as what a network takes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import predictions, refused
from PIL import Image

from trainables.data.load import Dataset
from trainables.data.pictures import Wanted, read_pictures
from trainables.export.facts import Format


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


def test_images_of_a_folder_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["0.png", "1.png", "2.png", "10.png", "a9.png", "a10.png", "b2/x.png", "b11/x.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert list(read_pictures([tmp_path], Wanted(1, 8)).names) == [str(tmp_path / name) for name in names]


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
