"""Image files and arrays as pixels of the one size and number of channels that a network takes."""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What is opened; Pillow knows formats for which it starts other programs."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
FAULTS_TOLD = 20

_MODES = {1: "L", 3: "RGB"}
_FAULTS = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a network takes: `size` x `size` pixels, which other images are scaled to where `resize` says so."""

    channels: int
    size: int
    resize: bool = False


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images with what they are called; pixels are uint8 (N, C, size, size)."""

    names: tuple[str, ...]
    pixels: Pixels


def read_pictures(paths: Sequence[Path], wanted: Wanted) -> Pictures:
    """The images of `paths`: image files, folders of them (all below, 2 before 10), and .npy of uint8 (N, H, W[, C]).

    Colours become grey (ITU-R 601) and grey becomes RGB where the network needs it; transparency is dropped, a
    photograph is turned upright as its EXIF says, and of an animation the first image is taken. Scaling is bilinear,
    antialiased, and keeps no aspect ratio, as the training images were scaled. An image of an array is `file.npy[i]`.

    Raises:
        DataError: an image cannot be read or has another size; all of them are told at once.

    """
    names: list[str] = []
    pixels: list[Pixels] = []
    faults: list[str] = []
    for name, read in chain.from_iterable(map(_each, paths)):
        try:
            pixels.append(read(wanted))
            names.append(name)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(told_faults(faults)))
    empty = np.empty((0, wanted.channels, wanted.size, wanted.size), np.uint8)
    return Pictures(tuple(names), np.stack(pixels) if pixels else empty)


def told_faults(faults: Sequence[str]) -> list[str]:
    """The first `FAULTS_TOLD` faults, with a word on the rest."""
    more = [f"and {len(faults) - FAULTS_TOLD} more"] if len(faults) > FAULTS_TOLD else []
    return [*faults[:FAULTS_TOLD], *more]


def _each(path: Path) -> Iterator[tuple[str, Callable[[Wanted], Pixels]]]:
    """The images of one path, each with what reads it."""
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        found = sorted(files, key=_natural)
        for file in found:
            yield str(file), partial(read_picture, file)
        if not found:
            yield str(path), partial(_refuse, f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
    elif path.suffix.lower() == ".npy":
        yield from _each_of_array(path)
    else:
        yield str(path), partial(read_picture, path)


def _natural(path: Path) -> tuple[list[list[str | int]], Path]:
    """Sorts numbers in names by their size."""
    pieces = (enumerate(re.split(r"(\d+)", part)) for part in path.parts)
    return [[int(piece) if place % 2 else piece for place, piece in part] for part in pieces], path


def _each_of_array(path: Path) -> Iterator[tuple[str, Callable[[Wanted], Pixels]]]:
    try:
        array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _FAULTS as error:
        yield str(path), partial(_refuse, f"{path}: cannot be read as an array: {_reason(error)}")
        return
    if fault := _fault_of_array(array):
        yield str(path), partial(_refuse, f"{path}: {array.dtype} of shape {array.shape}{fault}")
        return
    for index in range(len(array)):
        yield f"{path}[{index}]", partial(_of_array, f"{path}[{index}]", array[index])


def _fault_of_array(array: Pixels) -> str:
    """What makes it no images, in words; empty if nothing."""
    if array.dtype == np.uint8 and array.ndim == 2:
        return " is a single image; save x[None], which is an array of one"
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        return "; wanted is uint8 (N, height, width) or with channels last"
    if 0 in array.shape:
        return " holds no images"
    if array.ndim == 4 and array.shape[3] not in _MODES and array.shape[1] in _MODES:
        return "; channels last is wanted, (N, height, width, channels): save x.transpose(0, 2, 3, 1)"
    return ""


def _refuse(told: str, wanted: Wanted) -> Pixels:
    raise DataError(told)


def read_picture(path: Path, wanted: Wanted) -> Pixels:
    """The pixels of one image file, uint8 (C, size, size), read by the rules of `read_pictures`.

    Raises:
        DataError: it cannot be read, or has another size and must not be resized.

    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _fitted(str(path), image, wanted)
    except _FAULTS as error:
        msg = f"{path}: cannot be read as an image: {_reason(error)}"
        raise DataError(msg) from error


def _of_array(name: str, array: Pixels, wanted: Wanted) -> Pixels:
    channels = array.shape[2] if array.ndim == 3 else 1
    if channels == wanted.channels and array.shape[:2] == (wanted.size, wanted.size):
        return array.reshape(wanted.size, wanted.size, channels).transpose(2, 0, 1)
    if channels not in _MODES:
        msg = f"{name}: {channels} channels; the network takes {wanted.channels}"
        raise DataError(msg)
    plain = array[..., 0] if array.ndim == 3 and channels == 1 else array
    return _fitted(name, Image.fromarray(np.ascontiguousarray(plain)), wanted)


def _fitted(name: str, image: Image.Image, wanted: Wanted) -> Pixels:
    """Pixels (C, size, size) of an image in the wanted colours and size."""
    size = (wanted.size, wanted.size)
    if image.size != size and not wanted.resize:
        width, height = image.size
        msg = f"{name}: {width} x {height} pixels; the network takes {size[0]} x {size[1]} (--resize scales images)"
        raise DataError(msg)
    if image.mode[0] in "IF":
        msg = f"{name}: more than 8 bits a channel (mode {image.mode}); save it with 8 bits"
        raise DataError(msg)
    mode = _MODES.get(wanted.channels)
    if mode is None:
        msg = f"{name}: the network takes {wanted.channels} channels, which image files do not have; give a .npy"
        raise DataError(msg)
    upright = ImageOps.exif_transpose(image)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    coloured = upright.convert(mode)
    if coloured.size != size:
        coloured = coloured.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(coloured, np.uint8).reshape(*size, wanted.channels).transpose(2, 0, 1)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else str(error)
