"""Which image files a folder holds, and the SHA-256 of each. Needs no tensor library."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trainables.data.pictures import SUFFIXES
from trainables.data.whole import write_whole
from trainables.errors import DataError

UNREAD = frozenset({".heic", ".heif", ".avif", ".jp2", ".jxl"})
"""Images that are not read, and which nobody would want to be left out in silence."""

SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again within the same tick of its clock."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image's path relative to its folder, with slashes, its bytes and their SHA-256 in hexadecimal digits."""

    path: str
    size: int
    sha256: str


def list_images(folder: Path) -> dict[str, os.stat_result]:
    """All image files below a folder by relative path, sorted; names that begin with a dot are passed over.

    Raises:
        DataError: the folder is absent or cannot be read, leads back into itself, or holds images that are not read.

    """
    found: dict[str, os.stat_result] = {}
    faults: list[str] = []
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: {'no folder' if folder.exists() else 'missing'}")
        for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            faults += _loops(Path(place), folders)
            inner = Path(place).relative_to(folder).as_posix()
            prefix = "" if inner == "." else f"{inner}/"
            for name in names:
                suffix = "".join(name.rpartition(".")[1:]).lower()
                if name.startswith("."):
                    continue
                if suffix in SUFFIXES:
                    found[prefix + name] = _stat(Path(place, name))
                elif suffix in UNREAD:
                    faults.append(f"{Path(place, name)}: images {suffix} are not read; save it as PNG or JPEG")
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{str(folder)!r} is no name of a folder: {error}") from error
    if faults:
        raise DataError("\n".join(sorted(faults)))
    return dict(sorted(found.items()))


def _stat(path: Path) -> os.stat_result:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is a pipe, a device or a folder, and no image file; remove it")
    return found


def _loops(place: Path, folders: list[str]) -> list[str]:
    """Faults of links to a folder that they lie in, by which every image would be there many times; they are left out.

    `folders`, the names of those in `place`, is shortened.
    """
    above = {place.resolve(), *place.resolve().parents}
    loops = [name for name in folders if (place / name).is_symlink() and (place / name).resolve() in above]
    folders[:] = [name for name in folders if name not in loops]
    return [f"{place / name}: a link to a folder that it lies in; remove it" for name in loops]


def subfolders(folder: Path) -> list[str]:
    """The names of the folders directly in a folder, sorted; those that begin with a dot are passed over.

    Raises:
        DataError: the folder cannot be read.

    """
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def hashed(folder: Path, listed: Mapping[str, os.stat_result], notes: Path | None = None) -> list[ImageFile]:
    """The listed images with their sums, in the order of the list.

    Args:
        folder: what the paths are relative to.
        listed: of `list_images`.
        notes: a file that keeps the sums between calls. A sum is taken from it where size, time of modification and
            time of change (which no program can set) are those that stand beside it; None reads every file.

    Raises:
        DataError: files cannot be read; all of them are told at once.

    """
    known = _notes(notes)
    images: list[ImageFile] = []
    faults: list[str] = []
    for path, state in listed.items():
        note = known.get(path)
        try:
            sha256 = note[-1] if note and note[:-1] == _state(state) else _sha256(folder / path)
            images.append(ImageFile(path, state.st_size, sha256))
        except OSError as error:
            faults.append(f"{folder / path}: cannot be read ({error.strerror})")
    if faults:
        raise DataError("\n".join(faults))
    _keep_notes(notes, listed, images, known)
    return images


def _raise(error: OSError) -> None:
    raise error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _notes(file: Path | None) -> dict[str, list[Any]]:
    """What a former call kept; nothing where that cannot be read."""
    if file is None:
        return {}
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = cast("dict[str, Any]", content).items() if isinstance(content, dict) else ()
    return {path: note for path, note in entries if isinstance(note, list) and _is_sum(note[-1:])}


def _is_sum(last: list[Any]) -> bool:
    return bool(last) and isinstance(last[0], str) and len(last[0]) == 64


def _keep_notes(
    file: Path | None, listed: Mapping[str, os.stat_result], images: Sequence[ImageFile], known: Mapping[str, list[Any]]
) -> None:
    settled = time.time_ns() - SETTLED_NS
    notes: dict[str, list[Any]] = {}
    for image in images:
        stat = listed[image.path]
        note = [*_state(stat), image.sha256]
        if known.get(image.path) == note or max(stat.st_mtime_ns, stat.st_ctime_ns) < settled:
            notes[image.path] = note
    if file is None or notes == known:
        return
    with suppress(OSError):  # where it cannot be kept, the files are read again the next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, [json.dumps(notes).encode()])
