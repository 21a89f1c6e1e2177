import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import DataConfig, ModelConfig, TrialConfig, resolve
from trainables.data import files, idx
from trainables.data.load import Dataset, Split, load, normalise, resize, statistics
from trainables.data.splits import quotas, stratified
from trainables.data_config import DATASETS
from trainables.errors import DataError
from trainables.training.randomness import STREAMS, generator

NOWHERE = Path("no-such-folder")
REAL = Path(os.environ.get("ORCHESTRATOR_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def config(name: str = "digits", **leaves: int | float) -> DataConfig:
    leaf = DataConfig.model_validate({"name": name, **leaves})
    return resolve(TrialConfig(data=leaf, model=ModelConfig(name="resnet8")), "fp32").data


def digits(seed: int = 0, **leaves: int | float) -> Dataset:
    return load(config("digits", **leaves), seed, NOWHERE)


def real(name: str) -> Path:
    missing = files.faults(name, REAL)
    if missing:
        pytest.skip(f"{name} is not there: {missing[0]}")
    return REAL


def rows(split: Split) -> list[bytes]:
    return [image.tobytes() for image in split.images.numpy()]


def test_streams_and_seeds_are_unrelated_and_repeatable() -> None:
    draws = {(seed, stream): torch.rand(4, generator=generator(seed, stream)) for seed in (0, 1) for stream in STREAMS}
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 2 * len(STREAMS)
    for (seed, stream), draw in draws.items():
        assert torch.equal(draw, torch.rand(4, generator=generator(seed, stream)))


def test_generator_seed_is_the_documented_digest() -> None:
    expected = int.from_bytes(hashlib.sha256(b"7/init").digest(), "big") >> (256 - 63)
    assert generator(7, "init").initial_seed() == expected


def test_unknown_stream_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'dropout' is unknown; the streams are split, init"):
        generator(0, "dropout")


def test_digits_are_complete_and_disjoint() -> None:
    from sklearn.datasets import load_digits

    data = digits()
    assert (len(data.train), len(data.val), len(data.test)) == (1293, 144, 360)
    values = np.asarray(load_digits(return_X_y=True)[0])
    expected = sorted(np.floor(image * 255 / 16 + 0.5).astype(np.uint8).tobytes() for image in values)
    assert sorted(rows(data.train) + rows(data.val) + rows(data.test)) == expected


def test_config_facts_hold_for_digits() -> None:
    data, facts = digits(), DATASETS["digits"]
    assert len(data.train) + len(data.val) == facts.train_images
    assert len(data.test) == facts.test_images
    assert data.train.images.shape[1:] == (facts.channels, facts.image_size, facts.image_size)
    assert data.classes == facts.classes == len(data.train.labels.unique())


def test_splits_are_stratified() -> None:
    data = digits()
    assert data.test.labels.bincount().tolist() == [36] * 10
    pool = data.train.labels.bincount() + data.val.labels.bincount()
    assert ((data.val.labels.bincount() - pool * 144 / 1437).abs() < 1).all()


def test_images_keep_their_labels() -> None:
    known = {row: int(label) for part in _parts(digits(0)) for row, label in zip(rows(part), part.labels, strict=True)}
    for part in _parts(digits(1, train_size=500)):
        assert [known[row] for row in rows(part)] == part.labels.tolist()


def _parts(data: Dataset) -> tuple[Split, Split, Split]:
    return data.train, data.val, data.test


def test_seed_moves_validation_and_never_the_test_images() -> None:
    first, again, other, fewer = digits(0), digits(0), digits(1), digits(1, train_size=200, val_share=0.25)
    assert torch.equal(first.val.images, again.val.images)
    assert not torch.equal(first.val.images, other.val.images)
    for data in (other, fewer):
        assert torch.equal(first.test.images, data.test.images)
        assert torch.equal(first.test.labels, data.test.labels)
    assert (len(fewer.train), len(fewer.val)) == (150, 50)


def test_digits_test_split_is_the_one_it_has_always_been() -> None:
    test = digits().test
    digest = hashlib.sha256(test.images.numpy().tobytes() + test.labels.numpy().astype(np.uint8).tobytes()).hexdigest()
    assert digest == "7b32b517c6ee3ce966f2fd55174f3366e38d0135460f3f22fa2232600a0f55c6"


def test_changed_digits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.data import digits as module

    loadtxt = np.loadtxt

    def changed(*arguments: Any, **options: Any) -> "np.ndarray[Any, Any]":
        table = loadtxt(*arguments, **options)
        table[3, 20] += 1
        return table

    monkeypatch.setattr(np, "loadtxt", changed)
    with pytest.raises(DataError, match="not the expected ones"):
        module.read(NOWHERE)


def test_digits_elsewhere_in_scikit_learn_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.data import digits as module

    expected = digits()
    monkeypatch.setattr(module, "find_spec", lambda _name: None)  # pyright: ignore[reportUnknownLambdaType]
    assert torch.equal(digits().train.images, expected.train.images)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), st.data())
def test_quotas_sum_and_stay_within_one_of_the_share(counts: list[int], draw: st.DataObject) -> None:
    total = draw.draw(st.integers(0, sum(counts)))
    found = quotas(torch.tensor(counts), total)
    assert int(found.sum()) == total
    for count, quota in zip(counts, found.tolist(), strict=True):
        assert abs(quota - total * count / sum(counts)) < 1
        assert quota <= count


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data(), st.integers(0, 5))
def test_stratified_draw_splits_without_loss(labels: list[int], draw: st.DataObject, seed: int) -> None:
    total = draw.draw(st.integers(0, len(labels)))
    tensor = torch.tensor(labels)
    drawn, left = stratified(tensor, total, generator(seed, "split"))
    assert sorted(drawn.tolist() + left.tolist()) == list(range(len(labels)))
    classes = tensor.bincount()
    assert torch.equal(tensor[drawn].bincount(minlength=len(classes)), quotas(classes, total))


def test_stratified_draw_of_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="5 images cannot be drawn from 4"):
        stratified(torch.zeros(4, dtype=torch.int64), 5, generator(0, "split"))


def test_statistics_equal_the_direct_computation() -> None:
    images = torch.randint(256, (50, 3, 6, 6), dtype=torch.uint8, generator=generator(0, "calibration"))
    images[:, 2] = 7
    mean, std = statistics(images)
    scaled = images.double() / 255
    torch.testing.assert_close(mean, scaled.mean((0, 2, 3)).float())
    torch.testing.assert_close(std[:2], scaled[:, :2].std((0, 2, 3), correction=0).float())
    assert float(std[2]) == pytest.approx(1 / 255)


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    data = digits()
    pixels = normalise(data.train.images, data)
    assert pixels.dtype == torch.float32
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std()) == pytest.approx(1, abs=1e-4)
    expected = (data.test.images / 255 - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
    torch.testing.assert_close(normalise(data.test.images, data), expected)


def test_resize_of_flat_and_linear_images() -> None:
    flat = Split(torch.full((2, 3, 8, 8), 200, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert resize(flat, 8) is flat
    assert torch.equal(resize(flat, 32).images, torch.full((2, 3, 32, 32), 200, dtype=torch.uint8))
    ramp = Split(torch.arange(0, 128, 8, dtype=torch.uint8).expand(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64))
    # Halving with the triangle filter of width 4 leaves a linear ramp at the pairs' means, away from the borders.
    assert resize(ramp, 8).images[0, 0, 4].tolist()[1:-1] == [20, 36, 52, 68, 84, 100]
    line = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    line[..., 5] = 160
    # Weights 1/8 3/8 3/8 1/8 around 4.5 and 6.5; without antialiasing they would be 1/2 1/2.
    assert resize(Split(line, ramp.labels), 8).images[0, 0, 4].tolist() == [0, 0, 60, 20, 0, 0, 0, 0]


def test_resized_digits_keep_everything_but_the_size() -> None:
    small, large = digits(), digits(image_size=12)
    assert large.train.images.shape[2:] == (12, 12)
    assert large.train.images.dtype == torch.uint8
    assert torch.equal(small.val.labels, large.val.labels)


def test_open_config_is_refused() -> None:
    with pytest.raises(ValueError, match="resolved config"):
        load(DataConfig(name="digits"), 0, NOWHERE)


def test_files_module_needs_no_tensor_library() -> None:
    code = "import sys, trainables.data.files as f; f.faults('mnist', f.Path('x')); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_md5_table_is_torchvisions(name: str) -> None:
    from torchvision import datasets

    source = getattr(datasets, files.TORCHVISION_CLASS[name])
    listed = source.resources if hasattr(source, "resources") else source.train_list + source.test_list
    assert {Path(path).name: md5 for path, md5 in files.FILES[name].items()} == dict(listed)


def test_every_data_set_has_a_file_table() -> None:
    assert set(files.FILES) == set(DATASETS)
    assert files.faults("digits", NOWHERE) == []
    with pytest.raises(ValueError, match="'svhn' is unknown; known are digits, mnist"):
        files.faults("svhn", NOWHERE)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_set_names_each_file_and_the_ways_out(name: str, tmp_path: Path) -> None:
    found = files.faults(name, tmp_path)
    assert found == [f"{tmp_path / path}: missing" for path in files.FILES[name]]
    with pytest.raises(DataError) as raised:
        load(config(name), 0, tmp_path)
    text = str(raised.value)
    assert all(fault in text for fault in found)
    assert "--data-root" in text
    assert "--download" in text


def test_damaged_and_unreadable_files_are_named(tmp_path: Path) -> None:
    batch, folder = tmp_path / "cifar-100-python/train", tmp_path / "cifar-100-python/test"
    folder.mkdir(parents=True)
    batch.write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    first, second = files.faults("cifar100", tmp_path)
    assert first.startswith(f"{batch}: damaged or incomplete (md5 ")
    assert second.startswith(f"{folder}: cannot be read (")
    with pytest.raises(DataError, match="damaged or incomplete"):
        load(config("cifar100"), 0, tmp_path)


def test_download_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import utils

    def unreachable(url: str, *_: object) -> None:
        raise OSError(f"cannot reach {url}")

    monkeypatch.setattr(utils, "download_url", unreachable)
    with pytest.raises(DataError, match=r"mnist could not be downloaded into .*: cannot reach https?://.*train-images"):
        files.download("mnist", tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not be downloaded"):
        files.download("cifar10", tmp_path / "file" / "below")


def test_download_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import utils

    monkeypatch.setattr(utils, "download_url", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(DataError, match="missing"):
        files.download("mnist", tmp_path)
    files.download("digits", tmp_path / "untouched")
    assert not (tmp_path / "untouched").exists()


def test_idx_of_known_bytes(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = bytes([0, 0, 8, 3]) + struct.pack(">3i", 2, 3, 4) + values.tobytes()
    assert np.array_equal(idx.parse(content), values)


@pytest.mark.data
def test_real_fashion_mnist() -> None:
    data = load(config("fashion_mnist"), 0, real("fashion_mnist"))
    assert (len(data.train), len(data.val), len(data.test)) == (54_000, 6000, 10_000)
    assert data.val.labels.bincount().tolist() == [600] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert float(data.mean) == pytest.approx(0.2860, abs=1e-3)  # the figures that everybody normalises with
    assert float(data.std) == pytest.approx(0.3530, abs=1e-3)
    assert data.test.labels[:5].tolist() == [9, 2, 1, 1, 6]


@pytest.mark.data
def test_real_cifar10() -> None:
    data = load(config("cifar10", train_size=1000), 3, real("cifar10"))
    assert (len(data.train), len(data.val), len(data.test)) == (900, 100, 10_000)
    assert data.train.labels.bincount().tolist() == [90] * 10
    assert data.test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert data.test.images[0, :, 0, 0].tolist() == [158, 112, 49]  # the cat's first pixel, red first


@pytest.mark.data
def test_real_file_with_one_changed_byte_is_named(tmp_path: Path) -> None:
    source = real("fashion_mnist")
    shutil.copytree(source / "FashionMNIST/raw", tmp_path / "FashionMNIST/raw")
    assert files.faults("fashion_mnist", tmp_path) == []
    path = tmp_path / "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"
    labels = bytearray(gzip.decompress(path.read_bytes()))
    labels[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(gzip.compress(bytes(labels)))
    (fault,) = files.faults("fashion_mnist", tmp_path)
    assert fault.startswith(f"{path}: damaged")
    with pytest.raises(DataError, match="t10k-labels"):
        load(config("fashion_mnist"), 0, tmp_path)
