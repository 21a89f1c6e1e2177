"""Files that are whole or absent, and on disk when a call returns."""

import os
from pathlib import Path

from trainables.data.whole import write_whole


def publish(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader, or a machine that loses power, sees the old or the new file whole."""
    write_whole(path, [data])
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
