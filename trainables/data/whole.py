"""Files that are whole or absent."""

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by `parts`, one after the other, so that every reader sees the old or the new file whole.

    Two processes may do so at once: each writes a file of its own, and the last to be done stays.

    Raises:
        OSError: the folder cannot be written to, or is full.

    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Not tempfile: its files are for their owner alone, and a data root or a results folder may be shared.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # a disk that cannot be written hides no reason
            temporary.unlink(missing_ok=True)
        raise
