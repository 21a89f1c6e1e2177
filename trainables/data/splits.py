"""Images with labels, and stratified draws from them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Split:
    """Some images and their labels: uint8 (N, C, H, W) and int64 (N,). Its tensors are never written to."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "Split":
        """The images at `indices`, int64 (n,), in that order."""
        return Split(self.images[indices], self.labels[indices])


def quotas(counts: Tensor, total: int) -> Tensor:
    """How many of each class to draw so that the classes keep their shares, int64 (K,), summing to `total`.

    Largest remainders: each class has floor(total * count / all), and what is left goes to the largest fractions, the
    lower class first where they are equal.

    Args:
        counts: images of each class, int64 (K,).
        total: images to draw, at most the sum of `counts`.

    """
    exact = counts * total
    floor = exact // counts.sum()
    left = total - int(floor.sum())
    order = torch.argsort(exact % counts.sum(), descending=True, stable=True)
    floor[order[:left]] += 1
    return floor


def stratified(labels: Tensor, total: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `total` of the images by class; (drawn, left), both sorted indices into `labels`, int64.

    Raises:
        ValueError: `total` is more than there is.

    """
    if not 0 <= total <= len(labels):
        msg = f"{total} images cannot be drawn from {len(labels)}"
        raise ValueError(msg)
    return first_of_each(labels, quotas(torch.bincount(labels), total), generator)


def first_of_each(labels: Tensor, wanted: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `wanted` images of each class, int64 (K,); (drawn, left), both sorted indices into `labels`, int64.

    With one state of the generator, what is drawn where less is wanted of each class is drawn where more is.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    classes = torch.bincount(labels, minlength=len(wanted))
    # A stable sort by class keeps the random order within each, so that a class's first images are its draw.
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    start = torch.cumsum(classes, 0) - classes
    rank = torch.arange(len(labels)) - start.repeat_interleave(classes)
    drawn = rank < wanted.repeat_interleave(classes)
    return by_class[drawn].sort().values, by_class[~drawn].sort().values
