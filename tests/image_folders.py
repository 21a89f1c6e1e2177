"""Small folders of images, for the tests of data sets of a person's own."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.config import DataConfig, ModelConfig, TrainConfig, TrialConfig, resolve
from trainables.data.identify import Folders


def grey(value: int, size: int = 8) -> Image.Image:
    """A flat image with one other pixel, so that different values are different images."""
    pixels = np.full((size, size), value, np.uint8)
    pixels[value % size, (value // size) % size] = 255 - value
    return Image.fromarray(pixels)


def write_classes(folder: Path, counts: Mapping[str, int], first: int = 0) -> Path:
    """A folder per class, `counts[class]` different images in each; every image differs from every other."""
    value = first
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            grey(value).save(folder / name / f"{index}.png")
            value += 1
    return folder


def write_listed(folder: Path, labels: Mapping[str, str], images: int) -> Path:
    """Images `0.png`, `1.png`, ... and a labels file with the given rows."""
    folder.mkdir(parents=True)
    for index in range(images):
        grey(index).save(folder / f"{index}.png")
    rows = "".join(f"{file},{label}\n" for file, label in labels.items())
    (folder / "labels.csv").write_text(f"file,label\n{rows}")
    return folder


def identified(root: Path, batch_size: int = 2, **leaves: object) -> DataConfig:
    """The resolved config of an imagefolder `images` under `root`."""
    data = DataConfig.model_validate({"name": "imagefolder", "folder": "images", "image_size": 8, **leaves})
    trial = TrialConfig(data=data, model=ModelConfig(name="resnet8"), train=TrainConfig(batch_size=batch_size))
    return resolve(Folders(root).identified(trial), "fp32").data
