"""From a resolved `DataConfig` and a seed to the images of a trial."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.config import DataConfig
from trainables.data import cifar, digits, idx, imagefolder
from trainables.data.files import advice, faults
from trainables.data.scenarios import long_tail, with_noise
from trainables.data.splits import Split, stratified
from trainables.errors import DataError
from trainables.training.randomness import generator

__all__ = ["Dataset", "Split", "load", "normalise"]

READERS: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "digits": digits.read,
    "mnist": idx.read_mnist,
    "fashion_mnist": idx.read_fashion_mnist,
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """The three splits, and what the training images say of themselves.

    `mean` and `std` are those of the pixels of `train` scaled to 0..1, per channel, fp32 (C,). A loaded set is never
    written to, so that one may serve many trials.
    """

    train: Split
    val: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor


def load(config: DataConfig, seed: int, root: Path) -> Dataset:
    """The images of a resolved config.

    The stream (seed, "split") first draws `train_size` images by class from all that are not for testing, then
    `val_share` of them by class for validation. The test images are the set's own, whatever the seed. `imbalance` and
    `label_noise`, from streams of these names, then act on the training images alone.

    Args:
        config: resolved (`trainables.config.resolve`).
        seed: of the trial.
        root: folder of the torchvision sets, and of imagefolders; not used for digits.

    Raises:
        DataError: files are missing or damaged, of which all are told at once; or an imagefolder is not what it was.
        ValueError: the config is not resolved.

    """
    if config.image_size is None or config.train_size is None:
        msg = "data.image_size or data.train_size is open; load takes a resolved config (trainables.config.resolve)"
        raise ValueError(msg)
    everything, pool, test = _read(config, root)
    source = generator(seed, "split")
    chosen = pool[stratified(everything.labels[pool], config.train_size, source)[0]]
    held_out, rest = stratified(everything.labels[chosen], config.split_sizes()[1], source)
    training = _made_harder(everything, chosen[rest], config, seed)
    parts = (training, everything.subset(chosen[held_out]), test)
    train, val, test = (resize(part, config.image_size) for part in parts)
    mean, std = statistics(train.images)
    return Dataset(train, val, test, config.facts().classes, mean, std)


def _made_harder(everything: Split, training: Tensor, config: DataConfig, seed: int) -> Split:
    """The training images, given by their indices, as `imbalance` and `label_noise` leave them."""
    classes = config.facts().classes
    left = long_tail(everything.labels[training], classes, config.imbalance, generator(seed, "imbalance"))
    found = everything.subset(training[left])
    return Split(found.images, with_noise(found.labels, classes, config.label_noise, generator(seed, "label_noise")))


def normalise(images: Tensor, data: Dataset) -> Tensor:
    """uint8 (N, C, H, W) -> fp32 of the same shape, (images / 255 - mean) / std, on the device of `images`."""
    scale = (1 / (255 * data.std)).to(images.device).view(-1, 1, 1)
    shift = (data.mean / data.std).to(images.device).view(-1, 1, 1)
    return images * scale - shift


def resize(split: Split, size: int) -> Split:
    """The images at `size` x `size` pixels: bilinear, antialiased, rounded; unchanged where they have that size."""
    if split.images.shape[-1] == size:
        return split
    parts = [_resize(part, size) for part in split.images.split(4096)]  # bounds the memory of the fp32 copy
    return Split(torch.cat(parts) if parts else split.images, split.labels)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over uint8 images (N, C, H, W) scaled to 0..1, fp32 (C,).

    They are computed exactly from the 256 counts of each channel. A constant channel has the standard deviation of
    one grey level, 1/255, so that normalising never divides by zero.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[:, c].flatten(), minlength=256) for c in range(images.shape[1])])
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ levels
    variance = (share * (levels - mean.unsqueeze(1)) ** 2).sum(1)
    std = variance.sqrt()
    return mean.float(), torch.where(std > 0, std, 1 / 255).float()


def _resize(images: Tensor, size: int) -> Tensor:
    scaled = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _read(config: DataConfig, root: Path) -> tuple[Split, Tensor, Split]:
    """(images, which of them are no test images, the test images)."""
    if config.name == "imagefolder":
        return imagefolder.read(config, root)
    try:
        pool, test = READERS[config.name](root)
    except DataError:
        found = faults(config.name, root)
        if not found:
            raise
        raise DataError(advice(config.name, root, found)) from None
    return pool, torch.arange(len(pool)), test
