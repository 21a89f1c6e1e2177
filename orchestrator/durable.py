"""Files that are whole or absent, and on disk when a call returns."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath
from trainables.data.whole import write_whole


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a store: its name there, its size, and when it was written, in seconds since 1970 (UTC)."""

    key: str
    bytes: int
    modified_s: float


def stored_files(folder: AnyPath) -> Iterator[Stored]:
    """The files in `folder`; none where it does not exist. One that is removed meanwhile is left out.

    Raises:
        OSError: the folder cannot be read.

    """
    if isinstance(folder, RemotePath):
        yield from (Stored(path.name, facts.st_size, facts.st_mtime) for path, facts in folder.files())
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file(follow_symlinks=False):
                        facts = entry.stat()
                        yield Stored(entry.name, facts.st_size, facts.st_mtime)
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return


def publish(path: AnyPath, data: bytes) -> None:
    """Replace `path` by `data` so that a reader, or a machine that loses power, sees the old or the new file whole."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    write_whole(path, [data])
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
