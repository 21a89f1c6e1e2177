"""A file or folder on another filesystem than this machine's, in the words of pathlib that results need.

A folder is there where something lies in it. Files are whole or absent: an object is put in one go; elsewhere it is
written under a temporary name and moved. Errors are OSErrors with a `strerror`, as those of a disk.
"""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from orchestrator.storage.address import WHOLE_OBJECTS, Address, parsed
from orchestrator.storage.filesystems import opened, patiently

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

T = TypeVar("T")

READS = 5
"""How often a file is read that changes all the time."""


class Facts(NamedTuple):
    """What is known of a file: its bytes, and when it was written, seconds since 1970 (UTC) by the server's clock."""

    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        """The same in nanoseconds."""
        return round(self.st_mtime * 1e9)


class RemoteError(OSError):
    """The storage did not do what was asked, after all tries."""

    def __init__(self, path: "RemotePath", reason: str) -> None:
        super().__init__(errno.EIO, reason, str(path))


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A path at an address; its text shows no secret."""

    address: Address
    path: str

    @classmethod
    def of(cls, uri: str) -> Self:
        """The path that a URI names; errors as of `address.parsed`."""
        return cls(*parsed(uri))

    def __str__(self) -> str:
        return self.address.uri(self.path)

    def __lt__(self, other: "RemotePath") -> bool:
        return self.path < other.path

    def __truediv__(self, name: str | os.PathLike[str]) -> "RemotePath":
        return replace(self, path="/".join(filter(None, (self.path, os.fspath(name)))))

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rpartition("/")[2] or self.address.place

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> "RemotePath":
        """The folder in which it lies; of a bucket, itself."""
        return replace(self, path=self.path.rpartition("/")[0])

    def with_name(self, name: str) -> "RemotePath":
        """Another name in the same folder."""
        return self.parent / name

    def resolve(self) -> "RemotePath":
        """The path itself: a URI does not depend on the working folder."""
        return self

    def absolute(self) -> "RemotePath":
        """The path itself."""
        return self

    def arrow(self) -> "tuple[FileSystem, str]":
        """The pyarrow filesystem and the path in it, for what reads Parquet.

        Raises:
            OSError: the filesystem cannot be opened.

        """
        return self._told(lambda: self._arrow())

    def read_bytes(self) -> bytes:
        """All of the file, of one version of it.

        Raises:
            OSError: it is not there (FileNotFoundError), or cannot be read.

        """
        # A file is asked for as far as it went when its size was asked for: one that grew meanwhile would be cut.
        for _ in range(READS):
            before = self.stat()
            data = self.read_fixed()
            if self.stat() == before and len(data) == before.st_size:
                return data
        raise RemoteError(self, f"changed {READS} times while it was read")

    def read_fixed(self) -> bytes:
        """All of a file that is never replaced by another; errors as of `read_bytes`."""

        def read(system: "FileSystem", name: str) -> bytes:
            with system.open_input_file(name) as file:
                return file.readall()

        return self._do(read)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """All of the file, decoded."""
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes) -> None:
        """Replace the file, so that every reader sees the old or the new one whole.

        Raises:
            OSError: it cannot be written.

        """

        def put(system: "FileSystem", name: str) -> None:
            with system.open_output_stream(name) as file:
                file.write(data)

        def put_and_move(system: "FileSystem", name: str) -> None:
            folder, _, last = name.rpartition("/")
            system.create_dir(folder, recursive=True)
            temporary = f"{folder}/.{last}.{secrets.token_hex(8)}"
            put(system, temporary)
            system.move(temporary, name)

        self._do(put if self.address.scheme in WHOLE_OBJECTS else put_and_move)

    def write_text(self, text: str) -> None:
        """The same with a text."""
        self.write_bytes(text.encode())

    def touch(self) -> None:
        """An empty file."""
        self.write_bytes(b"")

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a folder comes with its first file."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file.

        Raises:
            OSError: it is not there, unless that is welcome, or cannot be removed.

        """
        try:
            self._do(lambda system, name: system.delete_file(name))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether a file is there."""
        return self._do(lambda system, name: system.get_file_info(name).is_file)

    def is_dir(self) -> bool:
        """Whether anything lies below."""
        return self._do(lambda system, name: system.get_file_info(name).type.name == "Directory")

    def stat(self) -> Facts:
        """Size and time of the file.

        Raises:
            OSError: it is not there, or cannot be reached.

        """
        info = self._do(lambda system, name: system.get_file_info(name))
        if not info.is_file:
            raise self._absent()
        return _facts(info)

    def files(self, *, recursive: bool = False) -> Iterator[tuple["RemotePath", Facts]]:
        """The files in the folder, and below it; none where there is no such folder.

        Raises:
            OSError: it cannot be listed.

        """
        for path, info in self._entries(recursive=recursive):
            if info.is_file:
                yield path, _facts(info)

    def iterdir(self) -> Iterator["RemotePath"]:
        """The files and folders in the folder; errors as of `files`."""
        return (path for path, _ in self._entries(recursive=False))

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Those in the folder whose names match; behind a `/` a name may follow that has to be there."""
        first, _, rest = pattern.partition("/")
        found = (path for path in self.iterdir() if fnmatchcase(path.name, first))
        return (path / rest for path in found if (path / rest).exists()) if rest else found

    def _entries(self, *, recursive: bool) -> "Iterator[tuple[RemotePath, FileInfo]]":
        from pyarrow import fs

        def listed(system: "FileSystem", name: str) -> "list[FileInfo]":
            return system.get_file_info(fs.FileSelector(name, allow_not_found=True, recursive=recursive))

        base = self._arrow()[1].rstrip("/")
        for info in self._do(listed):
            below = info.path.removeprefix(base).strip("/")
            if below:
                yield self / below, info

    def _arrow(self) -> "tuple[FileSystem, str]":
        system, base = opened(self.address)
        return system, f"{base.rstrip('/')}/{self.path}".rstrip("/") or "/"

    def _do(self, action: "Callable[[FileSystem, str], T]") -> T:
        return self._told(lambda: patiently(lambda: action(*self._arrow())))

    def _told(self, action: Callable[[], T]) -> T:
        """What the action gives; its errors in our words, without secrets."""
        import pyarrow as pa

        try:
            return action()
        except (FileNotFoundError, NotADirectoryError):
            raise self._absent() from None
        except (OSError, pa.ArrowException) as error:
            raise RemoteError(self, self._reason(error)) from error

    def _absent(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, "No such file", str(self))

    def _reason(self, error: Exception) -> str:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return self.address.redacted(first.partition(" (Request ID")[0])


def _facts(info: "FileInfo") -> Facts:
    return Facts(info.size or 0, info.mtime.timestamp() if info.mtime is not None else 0.0)
