"""A person's own images: layouts, labels files, fingerprints, the cache, and what is refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import grey, identified, write_classes, write_listed
from PIL import Image

from trainables.config import DataConfig, ModelConfig, TrialConfig, resolve
from trainables.data import cache, listing
from trainables.data.folder import NO_LABEL, facts, fingerprint
from trainables.data.identify import Folders
from trainables.data.imagefolder import read_folder
from trainables.data.load import Dataset, Split, load
from trainables.data.pictures import Wanted, read_pictures
from trainables.data_config import FOLDER_LEAVES
from trainables.errors import DataError
from trainables.keys import PathFinder

walk = os.walk

COPIES = "the same image, which training takes once"


def rows(*splits: Split) -> Counter[tuple[bytes, int]]:
    """Images with their labels, whatever their order."""
    return Counter(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images.numpy(), split.labels, strict=True)
    )


def refused(root: Path, batch_size: int = 2, **leaves: object) -> list[str]:
    """The lines of what an imagefolder is refused with."""
    with pytest.raises(DataError) as raised:
        identified(root, batch_size, **leaves)
    return str(raised.value).splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with three classes of different sizes."""
    write_classes(tmp_path / "images", {"cat": 20, "ant": 10, "bee": 15})
    return tmp_path


def everything(data: Dataset) -> tuple[Split, Split, Split]:
    return data.train, data.val, data.test


def test_classes_are_the_sorted_folders_and_the_counts_hold(root: Path) -> None:
    config = identified(root)
    data = load(config, 0, root)
    assert config.classes == ("ant", "bee", "cat")
    assert (config.train_images, config.test_images) == (36, 9)
    assert config.split_sizes() == tuple(map(len, everything(data))) == (32, 4, 9)
    assert data.test.labels.bincount().tolist() == [2, 3, 4]
    assert data.train.images.shape == (32, 3, 8, 8)
    assert data.classes == 3
    found = rows(*everything(data))
    expected = {
        (np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).tobytes(), label)
        for label, name in enumerate(config.classes)
        for path in (root / "images" / name).iterdir()
    }
    assert found == Counter(expected)


def test_the_test_images_are_the_same_whatever_the_seed_and_the_place(root: Path) -> None:
    config = identified(root)
    first = load(config, 0, root)
    shutil.move(root / "images", root / "elsewhere")
    moved = config.model_copy(update={"folder": "elsewhere"})
    again, other = load(moved, 0, root), load(moved, 1, root)
    assert torch.equal(first.test.images, other.test.images)
    assert rows(first.val) != rows(other.val)
    for one, two in zip(everything(first), everything(again), strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)


def test_pixels_are_those_that_predict_reads(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "images", {"a": 3, "b": 3}, first=40)
    turned = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "a" / "turned.jpg", exif=exif)
    grey(7).save(folder / "a" / "moving.gif", save_all=True, append_images=[grey(200)])
    grey(9, 20).convert("RGBA").save(folder / "b" / "large.PNG")
    for channels in (1, 3):
        config = identified(tmp_path, image_size=10, channels=channels)
        found = read_folder(config, tmp_path)
        paths = [folder / path for path in found.paths]
        expected = read_pictures(paths, Wanted(channels, 10, resize=True)).pixels
        assert np.array_equal(found.images.numpy(), expected)
    assert found.paths == tuple(sorted(path.relative_to(folder).as_posix() for path in paths))
    assert len(paths) == 9


def test_digits_as_files_have_the_pixels_of_digits(tmp_path: Path) -> None:
    plain = resolve(TrialConfig(data=DataConfig(name="digits"), model=ModelConfig(name="resnet8")), "fp32").data
    digits = load(plain, 0, tmp_path)
    for side, splits in {"train": (digits.train, digits.val), "test": (digits.test,)}.items():
        for label in range(10):
            (tmp_path / "images" / side / str(label)).mkdir(parents=True)
        images = torch.cat([split.images for split in splits])
        labels = torch.cat([split.labels for split in splits])
        for index, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
            Image.fromarray(image[0]).save(tmp_path / "images" / side / str(label) / f"{index}.png")
    data = load(identified(tmp_path, channels=1), 0, tmp_path)
    assert rows(data.test) == rows(digits.test)
    assert rows(data.train, data.val) == rows(digits.train, digits.val)
    assert data.test.images.shape == (360, 1, 8, 8)
    assert data.val.labels.bincount().tolist() == digits.val.labels.bincount().tolist()


def test_folders_train_and_test_say_what_is_for_testing(tmp_path: Path) -> None:
    write_classes(tmp_path / "images" / "train", {"a": 12, "b": 12})
    write_classes(tmp_path / "images" / "test", {"a": 1, "b": 2}, first=100)
    config = identified(tmp_path)
    assert (config.classes, config.train_images, config.test_images) == (("a", "b"), 24, 3)
    assert config.test_share is None
    data = load(config, 0, tmp_path)
    assert data.test.labels.tolist() == [0, 1, 1]
    assert set(data.test.images[:, 0, 7, 7].tolist()) == {100, 101, 102}
    assert "remove data.test_share" in refused(tmp_path, test_share=0.3)[1]


def test_a_class_of_few_images_keeps_one_on_either_side(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"many": 20, "one": 1, "two": 2})
    found = facts(tmp_path / "images", test_share=0.9)
    assert found.counts(for_test=True) == (18, 0, 1)
    assert found.counts(for_test=False) == (2, 1, 1)


def test_fingerprint_is_of_names_contents_and_labels_and_of_no_place(root: Path) -> None:
    first = fingerprint(root / "images")
    shutil.copytree(root / "images", root / "copy")
    assert fingerprint(root / "copy") == first
    (root / "copy" / "notes.txt").write_text("no image")
    (root / "copy" / ".hidden.png").write_bytes(b"no image")
    assert fingerprint(root / "copy") == first
    images = facts(root / "copy").images_fingerprint
    (root / "copy" / "ant" / "0.png").rename(root / "copy" / "ant" / "00.png")
    renamed = fingerprint(root / "copy")
    assert facts(root / "copy").images_fingerprint != images
    grey(250).save(root / "copy" / "ant" / "00.png")
    changed = fingerprint(root / "copy")
    shutil.move(root / "copy" / "ant" / "00.png", root / "copy" / "bee" / "00.png")
    assert len({first, renamed, changed, fingerprint(root / "copy")}) == 4


def test_labels_and_not_their_order_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = write_listed(tmp_path / "images", {"0.png": "a", "1.png": "b"}, 3)
    labels = Path("labels.csv")
    first = facts(folder, labels)
    (folder / labels).write_text("label,file,who\nb, ./1.png ,me\n a,0.png,\n\n,2.png\n")
    again = facts(folder, labels)
    assert again.fingerprint == first.fingerprint
    (folder / labels).write_text("file,label\n0.png,a\n1.png,a\n2.png,b\n")
    other = facts(folder, labels)
    assert other.fingerprint != first.fingerprint
    assert other.images_fingerprint == first.images_fingerprint


OTHER = {
    "labels": None, "folder": None,  # these say where, not what
    "classes": ("b", "a"), "channels": 1, "test_share": 0.5,
}  # fmt: skip


def test_a_key_holds_the_content_and_not_the_place(tmp_path: Path) -> None:
    labels = {f"{index}.png": "ab"[index % 2] for index in range(40)}
    write_listed(tmp_path / "images", labels, 40)
    shutil.copytree(tmp_path / "images", tmp_path / "copy")
    (tmp_path / "copy" / "labels.csv").rename(tmp_path / "copy" / "other.csv")

    def key(**leaves: Any) -> str:
        leaves = {"labels": "labels.csv", **leaves}
        data = identified(tmp_path, **leaves)
        trial = TrialConfig(data=data, model=ModelConfig(name="resnet8"), train={"batch_size": 2})  # pyright: ignore[reportArgumentType]
        return PathFinder().path(resolve(trial, "fp32"), 0)[0].key

    first = key()
    assert key(folder="copy", labels="other.csv") == first
    assert key(folder=str(tmp_path / "copy"), labels=str(tmp_path / "images" / "labels.csv")) == first
    assert key(channels=3, test_share=0.2, classes=("a", "b")) == first
    assert len({first, *(key(**{leaf: value}) for leaf, value in OTHER.items() if value)}) == 4
    (tmp_path / "images" / "labels.csv").write_text("file,label\n" + "".join(f"{f},a\n" for f in labels)[:-2] + "b\n")
    assert key() != first
    assert set(OTHER) | {"fingerprint", "train_images", "test_images"} == set(FOLDER_LEAVES)


def test_unlabelled_images_have_label_minus_1_and_are_not_trained_on(tmp_path: Path) -> None:
    write_listed(tmp_path / "images", {"2.png": "b", "10.png": "a", "4.png": ""}, 12)
    lines = refused(tmp_path, labels="labels.csv")
    assert lines[1].endswith("10 of 12 images have no label in labels.csv (0.png and so on); training needs all of "
                             "them: label them, or move them elsewhere")  # fmt: skip
    config = DataConfig(name="imagefolder", folder="images", labels="labels.csv", image_size=8, channels=1)
    found = read_folder(config, tmp_path, partly_labelled=True)
    labels = dict(zip(found.paths, found.labels.tolist(), strict=True))
    assert {path: label for path, label in labels.items() if label != NO_LABEL} == {"2.png": 1, "10.png": 0}
    values = dict(zip(found.paths, found.images[:, 0, 7, 7].tolist(), strict=True))
    assert values == {f"{index}.png": index for index in range(12)}
    with pytest.raises(DataError, match="10 of 12 images have no label"):
        read_folder(config, tmp_path)


def test_an_image_of_a_labels_file_stays_for_testing_while_labels_arrive(tmp_path: Path) -> None:
    folder = write_listed(tmp_path / "images", {"0.png": "a"}, 200)
    before = facts(folder, Path("labels.csv")).for_test
    sums = [hashlib.sha256(path.read_bytes()).digest() for path in sorted(folder.glob("*.png"))]
    assert list(before) == [int.from_bytes(sha256[:8], "big") / 2**64 < 0.2 for sha256 in sums]
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(200)))
    found = facts(folder, Path("labels.csv"))
    assert found.for_test == before
    assert 20 <= sum(before) <= 60
    more = facts(folder, Path("labels.csv"), test_share=0.5).for_test
    assert all(late or not early for early, late in zip(before, more, strict=True))


def test_faults_of_a_labels_file_are_told_with_their_lines(tmp_path: Path) -> None:
    folder = write_listed(tmp_path / "images", {}, 6)
    text = 'file,label\n0.png,a\n1.png,b\n9.png,a\n0.png,b\n"2.png",c\n3.png\n../images/4.png,a\n,a\n'
    (folder / "labels.csv").write_text(text)
    lines = refused(tmp_path, labels="labels.csv", classes=("a", "b"))
    file = folder / "labels.csv"
    assert lines[1:-1] == [
        f"  {file}: line 4: there is no image 9.png in the folder",
        f"  {file}: line 5: 0.png is there twice (also on line 2); keep one",
        f"  {file}: line 6: label 'c' is none of the classes a, b (data.classes)",
        f"  {file}: line 8: there is no image ../images/4.png in the folder",
        f"  {file}: line 9: there is no image (no name) in the folder",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"image,label\n0.png,a\n", "line 1: the header must have the columns file,label once each; file not in"),
        (
            b"file;label\n0.png;a\n",
            "line 1: the header must have the columns file,label once each; file, label not in: file;label; "
            "its columns are parted by ';': save it with commas",
        ),
        (b"", "line 1: the header must"),
        (b"file,label\n0.png,\xff\n", "not UTF-8 text"),
        (b'file,label\n"0.png,a\n', "unexpected end of data"),
        (None, "missing"),
    ],
)
def test_a_file_that_is_none_of_labels_is_refused(tmp_path: Path, content: bytes | None, told: str) -> None:
    folder = write_listed(tmp_path / "images", {}, 2)
    (folder / "labels.csv").unlink()
    if content is not None:
        (folder / "labels.csv").write_bytes(content)
    assert refused(tmp_path, labels="labels.csv")[1].startswith(f"  {folder / 'labels.csv'}: {told}")


def test_classes_that_a_labels_file_never_names_cannot_be_trained(tmp_path: Path) -> None:
    labels = {f"{index}.png": "a" for index in range(40)}
    write_listed(tmp_path / "images", labels, 40)
    assert "  one class only (a); a classifier needs two" in refused(tmp_path, labels="labels.csv")
    lines = refused(tmp_path, labels="labels.csv", classes=("a", "b"))
    assert lines[1:-1] == ["  class b: no image to train on"]


def test_every_fault_of_class_folders_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    assert refused(tmp_path) == [
        f"data set imagefolder is not usable under {folder}:",
        f"  {folder}: missing",
        "mend the folder, or name another: data.folder is looked for in --data-root, or is absolute",
    ]
    folder.mkdir()
    assert "no class folders" in refused(tmp_path)[1]
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    grey(1).save(folder / "x.png")
    assert refused(tmp_path)[1:-1] == [
        f"  {folder / 'x.png'}: lies beside the folders of images; move it into one",
        f"  {folder / 'a'}: an empty class, no image is in it",
        f"  {folder / 'b'}: an empty class, no image is in it",
    ]
    shutil.rmtree(folder / "b")
    shutil.move(folder / "x.png", folder / "a" / "x.png")
    assert refused(tmp_path)[1:-1] == [f"  {folder}: one class only (a); a classifier needs two"]
    (folder / "a" / "photo.HEIC").touch()
    assert "photo.HEIC: images .heic are not read" in refused(tmp_path)[1]


def test_sides_have_the_same_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "images" / "train", {"a": 4, "b": 4})
    write_classes(tmp_path / "images" / "test", {"a": 1, "c": 1}, first=100)
    told = "an empty class, no image is in it"
    lines = {f"  {tmp_path / 'images' / place}: {told}" for place in ("test/b", "train/c")}
    assert set(refused(tmp_path)[1:-1]) == lines


def test_one_image_in_two_classes_or_on_both_sides_is_refused(root: Path) -> None:
    shutil.copy(root / "images/ant/3.png", root / "images/cat/again.png")
    shutil.copy(root / "images/bee/1.png", root / "images/bee/twin.png")
    assert refused(root)[1:-1] == [
        "  ant/3.png and cat/again.png: the same image in two classes, ant and cat; remove one"
    ]
    (root / "images/cat/again.png").unlink()
    assert refused(root)[1:-1] == [f"  bee/1.png and bee/twin.png: {COPIES}; remove one"]
    sides = root / "sides" / "images"
    shutil.copytree(root / "images/ant", sides / "train/a")
    write_classes(sides / "train", {"b": 3}, first=100)
    write_classes(sides / "test", {"a": 1, "b": 1}, first=110)
    shutil.copy(sides / "train/a/0.png", sides / "test/a/x.png")
    assert refused(root / "sides")[1:-1] == [
        "  test/a/x.png and train/a/0.png: the same image for testing and for training; remove one"
    ]
    (sides / "test/a/x.png").unlink()
    shutil.copy(sides / "train/a/0.png", sides / "train/a/x.png")
    assert refused(root / "sides")[1:-1] == [f"  train/a/0.png and train/a/x.png: {COPIES}; remove one"]


def test_copies_may_be_labelled_and_not_trained_on(tmp_path: Path) -> None:
    folder = write_listed(tmp_path / "images", {f"{i}.png": "ab"[i % 2] for i in range(40)}, 40)
    with (folder / "labels.csv").open("a") as labels:
        labels.write("again.png,a\n")
    shutil.copy(folder / "4.png", folder / "again.png")
    lines = refused(tmp_path, labels="labels.csv")
    assert lines[1:-1] == [f"  4.png and again.png: {COPIES}; remove one, and its row in labels.csv"]
    config = DataConfig(name="imagefolder", folder="images", labels="labels.csv", image_size=8, channels=1)
    with pytest.raises(DataError, match=r"4\.png and again\.png: the same image"):
        read_folder(config, tmp_path)
    assert len(read_folder(config, tmp_path, partly_labelled=True).paths) == 41


def test_a_name_without_a_dot_has_no_suffix(root: Path) -> None:
    before = fingerprint(root / "images")
    for name in ("png", "JPG", "heic"):
        (root / "images/ant" / name).write_text("no image")
    assert fingerprint(root / "images") == before


def test_a_link_into_itself_and_what_is_no_file_are_refused(root: Path) -> None:
    folder = root / "images"
    before = facts(folder).fingerprint
    (folder / "ant" / "more").symlink_to(folder)
    (folder / "bee" / "loop").symlink_to(".")
    assert refused(root)[1:-1] == [
        f"  {folder / 'ant' / 'more'}: a link to a folder that it lies in; remove it",
        f"  {folder / 'bee' / 'loop'}: a link to a folder that it lies in; remove it",
    ]
    (folder / "ant" / "more").unlink()
    (folder / "bee" / "loop").unlink()
    (root / "elsewhere").mkdir()
    (folder / "ant" / "elsewhere").symlink_to(root / "elsewhere")
    assert facts(folder).fingerprint == before
    os.mkfifo(folder / "ant" / "pipe.png")
    assert (
        refused(root)[1]
        == f"  {folder / 'ant' / 'pipe.png'}: is a pipe, a device or a folder, and no image file; remove it"
    )


def test_every_image_that_cannot_be_decoded_is_named(root: Path) -> None:
    (root / "images/ant/junk.png").write_bytes(b"no image")
    whole = (root / "images/ant/0.png").read_bytes()
    (root / "images/bee/cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(root / "images/cat/deep.png")
    config = identified(root)
    with pytest.raises(DataError) as raised:
        load(config, 0, root)
    lines = str(raised.value).splitlines()[1:-1]
    for line, name in zip(lines, ("ant/junk.png", "bee/cut.png", "cat/deep.png"), strict=True):
        assert line.startswith(f"  {root / 'images' / name}: "), line
    assert "more than 8 bits a channel" in lines[2]
    assert not list((root / ".cache").rglob("*.u8*"))


def cached(root: Path) -> Path:
    (file,) = (root / ".cache").rglob("*.u8")
    return file


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    decoded: list[Path] = []
    read = cache.read_picture

    def counted(path: Path, wanted: Wanted) -> Any:
        decoded.append(path)
        return read(path, wanted)

    monkeypatch.setattr(cache, "read_picture", counted)
    return decoded


def test_images_are_decoded_once_for_all_seeds_and_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoded(monkeypatch)
    config = identified(root)
    first = load(config, 0, root)
    assert len(decoded) == 45
    assert cached(root).stat().st_size == 45 * 3 * 64 + 32
    load(config, 1, root)
    load(identified(root, test_share=0.4), 0, root)
    again = load(config, 0, root)
    assert len(decoded) == 45
    assert torch.equal(first.train.images, again.train.images)
    load(identified(root, image_size=9), 0, root)
    assert len(decoded) == 90
    write_listed(root / "part", {"0.png": "a"}, 5)
    for more in ("", "1.png,b\n"):
        with (root / "part/labels.csv").open("a") as file:
            file.write(more)
        config = DataConfig(name="imagefolder", folder="part", labels="labels.csv", image_size=8)
        read_folder(config, root, partly_labelled=True)
    assert len(decoded) == 95


@pytest.mark.parametrize("harm", ["truncated", "tampered", "empty", "lengthened"])
def test_a_harmed_cache_is_noticed_and_made_anew(root: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = identified(root)
    first = load(config, 0, root)
    whole = cached(root).read_bytes()
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    harmed = {"truncated": whole[:-700], "tampered": bytes(flipped), "empty": b"", "lengthened": whole + b"x"}
    cached(root).write_bytes(harmed[harm])
    decoded = count_decoded(monkeypatch)
    again = load(config, 0, root)
    assert len(decoded) == 45
    assert torch.equal(first.train.images, again.train.images)
    assert cached(root).read_bytes() == whole


def test_what_is_written_to_mapped_images_does_not_reach_the_file(root: Path) -> None:
    config = identified(root)
    found = read_folder(config, root)
    before = cached(root).read_bytes()
    found.images[:] = 0
    del found
    assert cached(root).read_bytes() == before


def test_two_processes_at_once_leave_one_whole_cache(root: Path) -> None:
    config = identified(root).model_dump_json()
    code = (
        "import sys, time, hashlib\nfrom pathlib import Path\nfrom trainables.config import DataConfig\n"
        "from trainables.data import cache, identify\n"
        "data, root = DataConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2])\n"
        "facts = identify.facts_of(data, root)\n"
        "time.sleep(max(0, float(sys.argv[3]) - time.time()))\n"
        "print(hashlib.sha256(cache.mapped(data, facts, root).tobytes()).hexdigest())\n"
        "assert 'torch' not in sys.modules\n"
    )
    words = [sys.executable, "-c", code, config, str(root), str(time.time() + 1.5)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(printed) == 1
    assert list(cached(root).parent.iterdir()) == [cached(root)]


def test_a_data_root_that_cannot_be_written_to_is_told_in_one_line(root: Path) -> None:
    config = identified(root)
    shutil.rmtree(root / ".cache", ignore_errors=True)
    (root / ".cache").touch()
    with pytest.raises(DataError) as raised:
        load(config, 0, root)
    assert "\n" not in str(raised.value)
    assert "cannot be written" in str(raised.value)
    assert "--data-root" in str(raised.value)
    assert identified(root) == config  # keys need no cache


def test_a_folder_that_changed_since_the_plan_is_refused(root: Path) -> None:
    config = identified(root)
    load(config, 0, root)
    grey(200).save(root / "images/ant/0.png")
    with pytest.raises(DataError, match=r"no longer those that were planned \(SHA-256 .*start anew"):
        load(config, 0, root)


def test_sums_are_kept_and_a_change_that_hides_its_time_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    sha256 = listing._sha256  # pyright: ignore[reportPrivateUsage]

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(listing, "_sha256", counted)
    notes, folder = root / "notes.json", root / "images"
    assert fingerprint(folder, notes=notes) == fingerprint(folder, notes=notes)
    assert len(hashed) == 90  # they may still be changing within a tick of the clock
    monkeypatch.setattr(listing, "SETTLED_NS", -(10**12))
    first = fingerprint(folder, notes=notes)
    hashed.clear()
    assert fingerprint(folder, notes=notes) == first
    assert hashed == []
    path = folder / "ant/0.png"
    stat = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert fingerprint(folder, notes=notes) != first
    assert hashed == [path]
    for junk in (b"", b"[1]", b'{"ant/0.png": []}', json.dumps({"ant/0.png": [1, 2, 3, 4]}).encode()):
        notes.write_bytes(junk)
        assert fingerprint(folder, notes=notes) == fingerprint(folder)


def test_facts_and_cache_need_no_tensor_library(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainables.data import folder\n"
        "print(folder.fingerprint(Path(sys.argv[1])))\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root / "images")], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == fingerprint(root / "images")


@pytest.mark.parametrize(
    ("leaves", "told"),
    [
        ({"name": "digits", "folder": "x"}, "data.folder has no effect on digits"),
        ({"name": "mnist", "channels": 1}, "data.channels has no effect on mnist"),
        ({"name": "imagefolder"}, "data.folder is required"),
        ({"name": "imagefolder", "folder": " "}, "empty text"),
        ({"name": "imagefolder", "folder": "x", "channels": 2}, "neither 1 .grey. nor 3"),
        ({"name": "imagefolder", "folder": "x", "classes": ("a", "b")}, "data.classes belongs to a labels file"),
        ({"name": "imagefolder", "folder": "x", "labels": "y", "classes": ("a", "a")}, "'a' is there twice"),
        ({"name": "imagefolder", "folder": "x", "labels": "y", "classes": ("a", " b")}, "no row .* says ' b'"),
        ({"name": "imagefolder", "folder": "x", "labels": "y", "classes": ("a", "")}, "no row .* says ''"),
    ],
)
def test_leaves_that_do_not_fit_the_set_are_refused(leaves: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataConfig.model_validate(leaves)


def test_what_a_trial_asks_is_checked_against_the_folder(root: Path) -> None:
    assert "needed are a batch" in refused(root, batch_size=40)[0]
    assert "data.train_size 40 is more than the 36 of imagefolder" in refused(root, train_size=40)[0]
    with pytest.raises(ValueError, match="not identified"):
        DataConfig(name="imagefolder", folder="images").facts()


def test_a_folder_is_looked_at_once_for_many_trials(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(listing.os, "walk", lambda *words, **more: looked.append(words[0]) or walk(*words, **more))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    folders = Folders(root)
    for share in (0.1, 0.2, 0.3):
        data = DataConfig(name="imagefolder", folder="images", val_share=share)
        trial = TrialConfig(data=data, model=ModelConfig(name="resnet8"), train={"batch_size": 2})  # pyright: ignore[reportArgumentType]
        assert folders.identified(trial).data.val_share == share
    assert looked == [root / "images"]


def test_a_trial_runs_from_the_command_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainables.__main__ import main

    torch.set_num_threads(1)
    tree = {
        "data": {"name": "imagefolder", "folder": "images", "image_size": 8, "channels": 1, "augment": "none"},
        "model": {"name": "resnet8", "width": 4},
        "train": {"epochs": 1, "batch_size": 8},
    }
    (root / "trial.json").write_text(json.dumps(tree))
    assert main([str(root / "trial.json"), "--data-root", str(root)]) == 0
    assert json.loads(capsys.readouterr().out)["test_images"] == 9
    assert main([str(root / "trial.json"), "--data-root", str(root / "nowhere")]) == 1
    assert f"{root / 'nowhere' / 'images'}: missing" in capsys.readouterr().err
