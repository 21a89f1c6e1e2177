"""The decoded images of a folder in one file. Needs no tensor library.

The file saves decoding, not memory: it is mapped, but read whole to check it, and `trainables.data.load` gathers the
images of each split from the map, so that a trial holds a copy of all of them.

A file holds the pixels, uint8 (N, C, size, size), then the SHA-256 of its shape and pixels (32 bytes). It is written
whole or not at all, and one that is not what was written is written anew.
"""

import hashlib
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from trainables.config import DataConfig
from trainables.data.folder import FolderFacts, advice
from trainables.data.identify import CACHE, facts_of, place
from trainables.data.pictures import Pixels, Wanted, read_picture
from trainables.data.whole import write_whole
from trainables.data_config import FOLDER_CHANNELS, FOLDER_IMAGE_SIZE
from trainables.errors import DataError

BLOCK = 512
"""Images that are decoded ahead of the one that is written."""

DIGEST_BYTES = 32


def prepare(data: DataConfig, root: Path) -> None:
    """See to it that the images of an imagefolder are what was planned, and are decoded.

    Raises:
        DataError: they are not, or an image cannot be decoded, or the data root cannot be written to.

    """
    mapped(data, facts_of(data, root), root)


def mapped(data: DataConfig, facts: FolderFacts, root: Path) -> Pixels:
    """All images of a folder in the order of `facts`, uint8 (N, C, size, size), as a map of the cached file.

    The map may be written to; the file does not change with it.

    Raises:
        DataError: images cannot be decoded, of which all are told at once, or the data root cannot be written to.

    """
    wanted = Wanted(data.channels or FOLDER_CHANNELS, data.image_size or FOLDER_IMAGE_SIZE, resize=True)
    file = root / CACHE / facts.images_fingerprint / f"{wanted.channels}x{wanted.size}x{wanted.size}.u8"
    shape = (len(facts.images), wanted.channels, wanted.size, wanted.size)
    found = _opened(file, shape)
    if found is None:
        _write(file, shape, [place(data, root) / image.path for image in facts.images], wanted, facts.folder)
        found = _opened(file, shape)
    if found is None:
        raise DataError(f"{file}: was written and is not what was written; the disk may be failing")
    return found


def _opened(file: Path, shape: tuple[int, int, int, int]) -> Pixels | None:
    """The cached pixels; None where there are none, or where they are not those that were written."""
    size = int(np.prod(shape, dtype=np.int64))
    try:
        if file.stat().st_size != size + DIGEST_BYTES:
            return None
        # Copied where it is written to: torch takes no read-only memory.
        whole = np.memmap(file, np.uint8, "c")
    except OSError:
        return None
    if whole.size != size + DIGEST_BYTES or _sum(shape, whole[:size]) != whole[size:].tobytes():
        return None
    return whole[:size].reshape(shape)


def _sum(shape: tuple[int, int, int, int], pixels: Pixels) -> bytes:
    digest = hashlib.sha256(repr(shape).encode())
    digest.update(pixels.data)
    return digest.digest()


def _write(file: Path, shape: tuple[int, int, int, int], paths: list[Path], wanted: Wanted, folder: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, _parts(shape, paths, wanted, folder))
    except OSError as error:
        msg = (
            f"{file.parent} cannot be written ({error.strerror}), where decoded images are kept: name a --data-root "
            "that can be; data.folder may be absolute and lie elsewhere"
        )
        raise DataError(msg) from error


def _parts(
    shape: tuple[int, int, int, int], paths: list[Path], wanted: Wanted, folder: Path
) -> Generator[bytes | memoryview]:
    digest = hashlib.sha256(repr(shape).encode())
    faults: list[str] = []
    read = partial(_read, wanted=wanted)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1) as pool:
        for start in range(0, len(paths), BLOCK):
            for found in pool.map(read, paths[start : start + BLOCK]):
                if isinstance(found, str):
                    faults.append(found)
                elif not faults:
                    part = np.ascontiguousarray(found).data
                    digest.update(part)
                    yield part
    if faults:
        raise DataError(advice(folder, faults))
    yield digest.digest()


def _read(path: Path, wanted: Wanted) -> Pixels | str:
    """The pixels, or in words why there are none."""
    try:
        return read_picture(path, wanted)
    except DataError as error:
        return str(error)
