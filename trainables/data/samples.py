"""Which few images stand for a data set where all of them would take too long."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.load import Dataset, Split

CALIBRATION_IMAGES = 256
"""Training images that set the steps of int8 activations."""

CHECKED_IMAGES = 1000
"""Test images on which a network that was packed or exported must predict what it did before."""


def calibration_images(data: "Dataset", seed: int, most: int = CALIBRATION_IMAGES) -> "Tensor":
    """At most `most` training images, normalised, drawn from (seed, "calibration"); shape (N, C, H, W)."""
    # imported late: who only asks how many images there are needs no tensors
    import torch

    from trainables.data.load import normalise
    from trainables.training.randomness import generator

    chosen = torch.randperm(len(data.train), generator=generator(seed, "calibration"))[:most]
    return normalise(data.train.images[chosen], data)


def checked_images(data: "Dataset") -> "Split":
    """The first `CHECKED_IMAGES` test images."""
    from trainables.data.load import Split

    return Split(data.test.images[:CHECKED_IMAGES], data.test.labels[:CHECKED_IMAGES])
