"""The files of the torchvision sets: which there are, whether they are whole, and how to fetch them.

Nothing here needs a tensor library until `download` is called. The md5 sums are torchvision's (0.29); the loaders read
the same files through `read`, so that no byte reaches a parser unchecked.
"""

import hashlib
from pathlib import Path
from typing import Any

from trainables.errors import DataError

# Path under the data root -> md5, in the layout that torchvision's downloads leave.
FILES: dict[str, dict[str, str]] = {
    "digits": {},
    "mnist": {
        "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "FashionMNIST/raw/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "FashionMNIST/raw/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "FashionMNIST/raw/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "cifar10": {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}

TORCHVISION_CLASS: dict[str, str] = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


def faults(name: str, root: Path) -> list[str]:
    """What is missing or corrupted of the set `name` under the data root, a line per file; empty when all is well.

    Raises:
        ValueError: no data set is called `name`.

    """
    found = (_fault(root / path, md5) for path, md5 in _files(name).items())
    return [fault for fault in found if fault]


def read(name: str, root: Path, path: str) -> bytes:
    """The bytes of one file of the set `name`, read once and checked.

    Raises:
        DataError: the file is missing, unreadable or not the released one.

    """
    content = _content(root / path)
    if isinstance(content, str):
        raise DataError(advice(name, root, [content]))
    wrong = _md5_fault(root / path, content, _files(name)[path])
    if wrong:
        raise DataError(advice(name, root, [wrong]))
    return content


def advice(name: str, root: Path, found: list[str]) -> str:
    """The message for a set with faults: each of them, and what the user can do."""
    lines = "\n".join(f"  {fault}" for fault in found)
    return (
        f"data set {name} is not usable under {root}:\n{lines}\n"
        "name the folder that holds it with --data-root, or let it be fetched with --download"
    )


def download(name: str, root: Path) -> None:
    """Fetch the set `name` into `root` through torchvision; files that are there and whole are not fetched again.

    Raises:
        ValueError: no data set is called `name`.
        DataError: no network, no space, no right to write, or what came is not the released set.

    """
    if not _files(name):
        return
    from torchvision import datasets  # a planner that only looks at files need not load torch

    try:
        root.mkdir(parents=True, exist_ok=True)
        _fetch(getattr(datasets, TORCHVISION_CLASS[name]), root)
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; torchvision raises RuntimeError
        msg = f"data set {name} could not be downloaded into {root}: {error}"
        raise DataError(msg) from error
    found = faults(name, root)
    if found:
        raise DataError(advice(name, root, found))


def _fetch(source: Any, root: Path) -> None:
    """Let a torchvision class fetch its files.

    MNIST's classes are content with unpacked files, which have no published md5; their archives are fetched one by one.
    """
    from torchvision.datasets.utils import download_url

    if not hasattr(source, "mirrors"):
        source(root, download=True)
        return
    for file, md5 in source.resources:
        download_url(source.mirrors[0] + file, root / source.__name__ / "raw", file, md5)


def _files(name: str) -> dict[str, str]:
    if name not in FILES:
        msg = f"data set {name!r} is unknown; known are {', '.join(FILES)}"
        raise ValueError(msg)
    return FILES[name]


def _fault(path: Path, md5: str) -> str | None:
    content = _content(path)
    return content if isinstance(content, str) else _md5_fault(path, content, md5)


def _content(path: Path) -> bytes | str:
    """The file's bytes, or in words why there are none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"


def _md5_fault(path: Path, content: bytes, md5: str) -> str | None:
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual == md5:
        return None
    return f"{path}: damaged or incomplete (md5 {actual}, the release has {md5}; {len(content)} bytes)"
