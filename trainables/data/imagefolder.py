"""A folder of a person's own images as tensors; which images those are says `trainables.data.folder`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainables.config import DataConfig
from trainables.data.cache import mapped
from trainables.data.identify import facts_of, refuse_untrainable
from trainables.data.splits import Split


@dataclass(frozen=True, slots=True)
class FolderImages:
    """All images of a folder, sorted by path.

    `images` are uint8 (N, C, size, size), mapped from the cached file, and copied where some are gathered; `labels`
    int64 (N,), `NO_LABEL` (-1) where an image has none yet; `for_test` bool (N,). `paths` are relative to the folder.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    images: Tensor
    labels: Tensor
    for_test: Tensor


def read_folder(config: DataConfig, root: Path, *, partly_labelled: bool = False) -> FolderImages:
    """The images of an imagefolder, decoded once and kept under the data root.

    Args:
        config: of an imagefolder, resolved or not.
        root: folder of the data sets.
        partly_labelled: images without label are welcome.

    Raises:
        DataError: the images cannot be used, are not those that were planned, or have no label.

    """
    facts = facts_of(config, root)
    if not partly_labelled:
        refuse_untrainable(facts, config)
    return FolderImages(
        paths=tuple(image.path for image in facts.images),
        classes=facts.classes,
        images=torch.from_numpy(mapped(config, facts, root)),
        labels=torch.tensor(facts.labels),
        for_test=torch.tensor(facts.for_test),
    )


def read(config: DataConfig, root: Path) -> tuple[Split, Tensor, Split]:
    """(all images, which of them are no test images, the test images).

    The test images are a copy; what is gathered from the others is one too.

    Raises:
        DataError: as in `read_folder`.

    """
    found = read_folder(config, root)
    everything = Split(found.images, found.labels)
    return everything, (~found.for_test).nonzero().flatten(), everything.subset(found.for_test.nonzero().flatten())
