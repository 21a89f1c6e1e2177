"""Augmentation of whole batches of uint8 images (N, C, H, W), on their device, from a CPU generator."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def none(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images themselves; nothing is drawn."""
    return images


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to a tenth of its side (at least one pixel) either way; black moves in."""
    return _crop(images, max(1, round(images.shape[-1] * 0.1)), generator)


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop after padding with black by an eighth of the side (4 at 28 and 32 pixels), half of them mirrored.

    Reference: Lee et al., "Deeply-Supervised Nets", AISTATS 2015, as used by He et al., CVPR 2016, section 4.2.
    """
    cropped = _crop(images, round(images.shape[-1] / 8), generator)
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), cropped.flip(3), cropped)


AUGMENTATIONS: dict[str, Augmentation] = {"none": none, "shift": shift, "crop_flip": crop_flip}


def _crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """A window of the images' own size at a random place of each padded image; rows are drawn first, then columns."""
    count, _, height, width = images.shape
    rows, columns = torch.randint(2 * pad + 1, (2, count), generator=generator).to(images.device)
    # (N, 2 pad + 1, 2 pad + 1, C, H, W): every window as a view, of which one for each image is copied.
    windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)
    return windows[torch.arange(count, device=images.device), rows, columns]
