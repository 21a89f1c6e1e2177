"""A path on this machine, or one elsewhere: which of the two a text names is decided once, at the edge."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from orchestrator.errors import StoreError
from orchestrator.storage.remote import RemotePath

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

AnyPath = Path | RemotePath


def located(given: str | AnyPath) -> AnyPath:
    """The path that a person means: a URI with `://`, else one of this machine.

    Raises:
        StoreError: a URI of an unknown kind or malformed.

    """
    if not isinstance(given, str):
        return given
    if given.startswith("file://"):
        return Path(unquote(given.removeprefix("file://").removeprefix("localhost")))
    return RemotePath.of(given) if "://" in given else Path(given)


def named(text: str) -> AnyPath:
    """The same for an argument of the command line.

    Raises:
        ArgumentTypeError: as `located`.

    """
    try:
        return located(text)
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def of_this_machine(path: AnyPath, needs: str) -> Path:
    """A path that has to be on this machine's disks; `needs` says who has to have it so.

    Raises:
        StoreError: it is elsewhere.

    """
    if isinstance(path, RemotePath):
        raise StoreError(f"{path}: {needs}; name a folder of this machine")
    return path


def opened(path: AnyPath) -> "NativeFile":
    """A file for what reads Parquet; one elsewhere is read whole, since it may be replaced meanwhile.

    Raises:
        OSError: it is not there, or cannot be read.

    """
    import pyarrow as pa

    return pa.BufferReader(path.read_bytes()) if isinstance(path, RemotePath) else pa.OSFile(str(path))


def arrow(path: AnyPath) -> "tuple[FileSystem, str]":
    """The pyarrow filesystem of a path, and its name there.

    Raises:
        OSError: the filesystem cannot be opened.

    """
    if isinstance(path, RemotePath):
        return path.arrow()
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem(), str(path)
