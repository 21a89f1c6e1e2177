"""Long tails and wrong labels act on the training images, and on nothing else."""

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_folders import identified, write_classes
from pydantic import ValidationError

from trainables.config import DataConfig, ModelConfig, TrialConfig, resolve
from trainables.data.load import Dataset, Split, load
from trainables.data.scenarios import long_tail, with_noise
from trainables.data.splits import first_of_each
from trainables.training.randomness import generator

NOWHERE = Path("no-such-folder")
labellings = st.lists(st.integers(0, 4), min_size=5, max_size=80).map(torch.tensor)


@cache
def digits(seed: int = 0, **leaves: object) -> Dataset:
    data = DataConfig.model_validate({"name": "digits", **leaves})
    return load(resolve(TrialConfig(data=data, model=ModelConfig(name="resnet8")), "fp32").data, seed, NOWHERE)


def rows(split: Split) -> list[bytes]:
    return [image.tobytes() for image in split.images.numpy()]


def same(one: Split, other: Split) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_ten_equal_classes_keep_the_closed_form() -> None:
    labels = torch.arange(10).repeat_interleave(500)
    kept = long_tail(labels, 10, 100.0, generator(0, "imbalance"))
    # 500 x 100^(-k/9): the class sizes of long-tailed CIFAR-10, rounded
    assert labels[kept].bincount().tolist() == [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]
    assert torch.equal(kept, kept.unique())


@settings(max_examples=40, deadline=None)
@given(labellings, st.floats(1, 1000), st.integers(0, 3))
def test_each_class_keeps_its_share_of_its_own_images(labels: torch.Tensor, imbalance: float, seed: int) -> None:
    kept = long_tail(labels, 5, imbalance, generator(seed, "imbalance"))
    assert kept.tolist() == sorted(set(kept.tolist()))
    before, after = labels.bincount(minlength=5).tolist(), labels[kept].bincount(minlength=5).tolist()
    assert after[0] == before[0]
    for k, (count, left) in enumerate(zip(before, after, strict=True)):
        assert left == (0 if count == 0 else max(1, round(count * imbalance ** (-k / 4))))


@settings(max_examples=40, deadline=None)
@given(labellings, st.floats(1, 100), st.floats(1, 100))
def test_a_longer_tail_is_a_part_of_a_shorter_one(labels: torch.Tensor, one: float, other: float) -> None:
    shorter, longer = (long_tail(labels, 5, ratio, generator(0, "imbalance")) for ratio in sorted((one, other)))
    assert set(longer.tolist()) <= set(shorter.tolist())


@settings(max_examples=40, deadline=None)
@given(labellings, st.floats(0, 0.99), st.integers(0, 3))
def test_so_many_labels_are_wrong_and_no_more(labels: torch.Tensor, share: float, seed: int) -> None:
    before = labels.clone()
    noisy = with_noise(labels, 5, share, generator(seed, "label_noise"))
    assert int((noisy != labels).sum()) == round(share * len(labels))
    assert torch.equal(labels, before)
    assert noisy.min() >= 0
    assert noisy.max() < 5


@settings(max_examples=40, deadline=None)
@given(labellings, st.floats(0, 0.99), st.floats(0, 0.99))
def test_more_noise_adds_to_less(labels: torch.Tensor, one: float, other: float) -> None:
    less, more = (with_noise(labels, 5, share, generator(0, "label_noise")) for share in sorted((one, other)))
    wrong = less != labels
    assert torch.equal(more[wrong], less[wrong])


def test_wrong_labels_fall_evenly_on_the_other_classes() -> None:
    labels = torch.full((40_000,), 3)
    noisy = with_noise(labels, 5, 0.5, generator(0, "label_noise"))
    counts = noisy.bincount(minlength=5).tolist()
    assert counts[3] == 20_000
    # 5,000 each, standard deviation sqrt(20,000 x 1/4 x 3/4) = 61
    assert all(abs(count - 5000) < 300 for k, count in enumerate(counts) if k != 3)


def test_first_of_each_draws_what_is_wanted_and_loses_nothing() -> None:
    labels = torch.tensor([2, 0, 0, 2, 2, 0])
    drawn, left = first_of_each(labels, torch.tensor([1, 0, 2]), generator(0, "split"))
    assert labels[drawn].bincount(minlength=3).tolist() == [1, 0, 2]
    assert sorted(drawn.tolist() + left.tolist()) == list(range(6))


SCENARIOS: list[dict[str, object]] = [
    {"imbalance": 10.0},
    {"label_noise": 0.3},
    {"imbalance": 10.0, "label_noise": 0.3},
]


@pytest.mark.parametrize("leaves", SCENARIOS)
def test_validation_and_test_images_stay_as_they_are(leaves: dict[str, object]) -> None:
    plain, harder = digits(), digits(**leaves)
    assert same(plain.val, harder.val)
    assert same(plain.test, harder.test)
    assert not same(plain.train, harder.train)
    assert set(rows(harder.train)) <= set(rows(plain.train))
    again, other = digits.__wrapped__(**leaves), digits(1, **leaves)
    assert same(harder.train, again.train)
    assert not same(harder.train, other.train)


def test_noise_changes_labels_alone_and_a_long_tail_keeps_them() -> None:
    plain = digits()
    truth = dict(zip(rows(plain.train), plain.train.labels.tolist(), strict=True))
    noisy = digits(label_noise=0.2)
    assert torch.equal(noisy.train.images, plain.train.images)
    assert torch.equal(noisy.mean, plain.mean)
    assert int((noisy.train.labels != plain.train.labels).sum()) == round(0.2 * 1293)
    tail = digits(imbalance=20.0)
    assert [truth[row] for row in rows(tail.train)] == tail.train.labels.tolist()
    both = digits(imbalance=20.0, label_noise=0.2)
    assert torch.equal(both.train.images, tail.train.images)
    assert int((both.train.labels != tail.train.labels).sum()) == round(0.2 * len(tail.train))


def test_each_seed_has_its_own_wrong_labels() -> None:
    places = [digits(seed, label_noise=0.2).train.labels != digits(seed).train.labels for seed in (0, 1)]
    assert not torch.equal(*places)


def test_without_a_scenario_the_images_are_those_of_the_releases_before() -> None:
    data = digits(3, train_size=600)
    content = b"".join(part.images.numpy().tobytes() + part.labels.numpy().tobytes() for part in (data.train, data.val))
    assert hashlib.sha256(content).hexdigest() == FORMER


FORMER = "2fac1e838002dc15749c6d6650ac698ded2fed857f1f8ced4c4ca421dda36b47"


@pytest.mark.parametrize("imbalance", [1.0, 2.0, 50.0])
def test_the_number_of_training_images_is_foreseen(imbalance: float) -> None:
    data = resolve(
        TrialConfig(data=DataConfig(name="digits", imbalance=imbalance), model=ModelConfig(name="resnet8")), "fp32"
    ).data
    training, held_out, test = data.split_sizes()
    loaded = digits(imbalance=imbalance)
    assert (held_out, test) == (len(loaded.val), len(loaded.test))
    assert abs(training - len(loaded.train)) <= 10  # the classes are not quite equally large


def test_a_tail_that_leaves_less_than_a_batch_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"0\.1 of 500 images, with data\.imbalance 100, leaves 112 to train on and 50"
    ):
        TrialConfig(data=DataConfig(name="digits", train_size=500, imbalance=100.0), model=ModelConfig(name="resnet8"))


@pytest.mark.parametrize("leaves", [{"imbalance": 0.5}, {"label_noise": 1.0}, {"label_noise": -0.1}])
def test_bounds(leaves: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"name": "digits", **leaves})


def test_scenarios_of_a_folder(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"a": 40, "b": 40})
    plain, tail = (load(identified(tmp_path, imbalance=ratio), 0, tmp_path) for ratio in (1.0, 4.0))
    assert plain.train.labels.bincount().tolist() == [29, 29]
    assert tail.train.labels.bincount().tolist() == [29, 7]
    assert same(plain.val, tail.val)
    assert same(plain.test, tail.test)
