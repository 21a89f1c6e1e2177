"""CIFAR-10 and CIFAR-100 from their Python batches (Krizhevsky, "Learning Multiple Layers of Features", 2009)."""

import pickle
from pathlib import Path

import numpy as np
import torch

from trainables.data.files import FILES, read
from trainables.data.splits import Split


def read_cifar10(root: Path) -> tuple[Split, Split]:
    """(pool, test): 50,000 and 10,000 images, (N, 3, 32, 32), red first.

    Raises:
        DataError: a file is missing or damaged.

    """
    return _read("cifar10", root, b"labels")


def read_cifar100(root: Path) -> tuple[Split, Split]:
    """(pool, test): 50,000 and 10,000 images, (N, 3, 32, 32), red first; the 100 fine labels.

    Raises:
        DataError: a file is missing or damaged.

    """
    return _read("cifar100", root, b"fine_labels")


def _read(name: str, root: Path, key: bytes) -> tuple[Split, Split]:
    paths = list(FILES[name])  # the test batch stands last
    return _batches(name, root, paths[:-1], key), _batches(name, root, paths[-1:], key)


def _batches(name: str, root: Path, paths: list[str], key: bytes) -> Split:
    # `read` lets only bytes with the released md5 through, so the pickle is the authors' own.
    batches = [pickle.loads(read(name, root, path), encoding="bytes") for path in paths]  # noqa: S301
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.asarray(batch[key], dtype=np.int64) for batch in batches])
    return Split(torch.from_numpy(images), torch.from_numpy(labels))
