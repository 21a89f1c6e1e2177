import pytest
import torch
from torch import Tensor

from trainables.training import augment
from trainables.training.randomness import generator


def padded_window(image: Tensor, pad: int, row: int, column: int) -> Tensor:
    """Pixel by pixel: what a window at (row, column) of the padded image shows."""
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + row - pad, x + column - pad
            if 0 <= from_y < height and 0 <= from_x < width:
                out[:channels, y, x] = image[:, from_y, from_x]
    return out


@pytest.mark.parametrize(("name", "size", "pad"), [("crop_flip", 32, 4), ("crop_flip", 8, 1), ("shift", 8, 1)])
def test_augmentations_equal_the_naive_ones(name: str, size: int, pad: int) -> None:
    images = torch.randint(256, (8, 3, size, size), dtype=torch.uint8, generator=generator(0, "calibration"))
    found = augment.AUGMENTATIONS[name](images, generator(5, "augmentation"))
    source = generator(5, "augmentation")
    rows, columns = torch.randint(2 * pad + 1, (2, 8), generator=source).tolist()
    expected = torch.stack([padded_window(i, pad, r, c) for i, r, c in zip(images, rows, columns, strict=True)])
    if name == "crop_flip":
        for index, draw in enumerate(torch.rand(8, generator=source).tolist()):
            if draw < 0.5:
                expected[index] = expected[index].flip(2)
    assert torch.equal(found, expected)
    assert found.dtype == torch.uint8


def test_augmentations_reach_every_place_and_only_half_are_mirrored() -> None:
    dot = torch.zeros(4000, 1, 28, 28, dtype=torch.uint8)
    dot[:, 0, 14, 10] = 255
    places = augment.crop_flip(dot, generator(0, "augmentation")).nonzero()
    mirrored = places[:, 3] > 14  # column 10 +- 4, or 17 +- 4
    mixed = (places[:, 3] >= 13) & (places[:, 3] <= 14)
    assert len(places) == 4000
    assert sorted(set(places[:, 2].tolist())) == list(range(10, 19))
    assert sorted(set(places[:, 3].tolist())) == list(range(6, 22))
    assert 0.35 < float(mirrored.float().mean()) < 0.55
    assert bool(mixed.any())
    shifted = augment.shift(dot, generator(0, "augmentation")).nonzero()
    assert sorted(set(shifted[:, 3].tolist())) == list(range(7, 14))
    assert augment.none(dot, generator(0, "augmentation")) is dot
