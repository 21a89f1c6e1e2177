"""MNIST and Fashion-MNIST from their gzipped idx files (the format of LeCun's MNIST page: big-endian header, bytes)."""

import gzip
from pathlib import Path

import numpy as np
import torch

from trainables.data.files import read
from trainables.data.splits import Split


def read_mnist(root: Path) -> tuple[Split, Split]:
    """(pool, test): 60,000 and 10,000 images, (N, 1, 28, 28).

    Raises:
        DataError: a file is missing or damaged.

    """
    return _split("mnist", root, "MNIST/raw/train"), _split("mnist", root, "MNIST/raw/t10k")


def read_fashion_mnist(root: Path) -> tuple[Split, Split]:
    """(pool, test): 60,000 and 10,000 images, (N, 1, 28, 28). Reference: Xiao et al., arXiv:1708.07747.

    Raises:
        DataError: a file is missing or damaged.

    """
    folder = "FashionMNIST/raw"
    return _split("fashion_mnist", root, f"{folder}/train"), _split("fashion_mnist", root, f"{folder}/t10k")


def _split(name: str, root: Path, prefix: str) -> Split:
    images = parse(gzip.decompress(read(name, root, f"{prefix}-images-idx3-ubyte.gz")))
    labels = parse(gzip.decompress(read(name, root, f"{prefix}-labels-idx1-ubyte.gz")))
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


def parse(content: bytes) -> np.ndarray:
    """An idx file of bytes: two zeros, type 8, the number of dimensions, the dimensions (int32), the values."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()
