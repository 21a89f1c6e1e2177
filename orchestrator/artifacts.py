"""Stage outputs by key: written under a temporary name, hashed, then published."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.durable import Stored, publish, stored_files
from orchestrator.errors import StoreError
from orchestrator.storage.here import cache_folder, fingerprint
from orchestrator.storage.node_cache import NodeCache, most_bytes
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemoteError, RemotePath

NOTHING = hashlib.sha256(b"").hexdigest()

KEY = re.compile(r"[0-9a-z]+")
"""What a stage's key looks like: no name of another kind is listed, dropped or written as one."""


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Files of bytes under `root`, one a stage; a name is either absent or whole. Of no bytes there is no file."""

    root: AnyPath

    def path(self, key: str) -> AnyPath:
        """Where the output of the stage `key` lies, or would."""
        return self.root / key

    def has(self, key: str) -> bool:
        """Whether the output of the stage `key` is here."""
        return self.path(key).is_file()

    def write(self, key: str, data: bytes) -> str:
        """Publish the output of a stage and return its SHA-256.

        Raises:
            StoreError: the folder cannot be written.

        """
        try:
            if data:
                self.root.mkdir(parents=True, exist_ok=True)
                publish(self.path(key), data)
        except OSError as error:
            raise StoreError(f"{self.root}: cannot write the output of stage {key}: {error.strerror}") from error
        sha256 = hashlib.sha256(data).hexdigest()
        if self._cache is not None:
            self._cache.put(_name(key, sha256), data)
        return sha256

    def read(self, key: str, sha256: str | None) -> bytes | None:
        """The output of a stage, or None where it is absent or no longer what was written.

        Of a store elsewhere it is fetched once a machine, where its sum is known.

        Raises:
            StoreError: a store elsewhere does not answer.

        """
        if sha256 == NOTHING:
            return b""
        path = self.path(key)
        try:
            if self._cache is not None and sha256 is not None and isinstance(path, RemotePath):
                return self._cache.read(_name(key, sha256), sha256, path.read_fixed)
            data = path.read_bytes()
        except RemoteError as error:
            raise StoreError(f"{path}: the output of a stage cannot be read: {error.strerror}") from error
        except OSError:
            return None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            return None
        return data

    def intact(self, key: str, sha256: str | None, size: int | None) -> bool:
        """Whether the output of a stage is here as it was written.

        Of one elsewhere only the size is looked at: who needs it fetches it, and sees whether it is what it was.

        Raises:
            StoreError: a store elsewhere does not answer.

        """
        path = self.path(key)
        if not isinstance(path, RemotePath):
            return self.read(key, sha256) is not None
        try:
            return path.stat().st_size == size
        except RemoteError as error:
            raise StoreError(f"{path}: cannot be reached: {error.strerror}") from error
        except FileNotFoundError:
            return False

    def file(self, key: str, sha256: str) -> Path | None:
        """A file of this machine with the output of a stage; None as of `read`.

        Raises:
            StoreError: a store elsewhere does not answer.

        """
        if self.read(key, sha256) is None:
            return None
        path = self.path(key)
        if not isinstance(path, RemotePath):
            return path
        return self._cache.file(_name(key, sha256)) if self._cache is not None else None

    @property
    def _cache(self) -> NodeCache | None:
        if not isinstance(self.root, RemotePath):
            return None
        return NodeCache(cache_folder() / "artifacts" / fingerprint(self.root), most_bytes())

    def keys(self) -> Iterator[Stored]:
        """What lies here, in no order; files that are still being written have no key and are left out.

        Raises:
            StoreError: the folder cannot be read.

        """
        return stored_keys(self.root)

    def drop(self, key: str) -> None:
        """Remove the output of a stage; nothing where there is none.

        Raises:
            StoreError: it cannot be removed.

        """
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path(key)}: cannot be removed: {error.strerror}") from error


def _name(key: str, sha256: str) -> str:
    return f"{key}-{sha256}"


def stored_keys(root: AnyPath) -> Iterator[Stored]:
    """The files of a store of stages.

    Raises:
        StoreError: the folder cannot be read.

    """
    try:
        yield from (one for one in stored_files(root) if KEY.fullmatch(one.key))
    except OSError as error:
        raise StoreError(f"{root}: cannot be read: {error.strerror}") from error
