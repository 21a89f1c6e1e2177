"""Files that are whole or absent, and on disk when a call returns."""

import os
import secrets
from pathlib import Path


def publish(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader, or a machine that loses power, sees the old or the new file whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Not tempfile: its files are for their owner alone, and a results folder may be shared.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
