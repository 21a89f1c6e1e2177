"""Stage outputs by key: written under a temporary name, hashed, then published."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.durable import Stored, publish, stored_files
from orchestrator.errors import StoreError
from orchestrator.storage.places import AnyPath

KEY = re.compile(r"[0-9a-z]+")
"""What a stage's key looks like: no name of another kind is listed, dropped or written as one."""


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Files of bytes under `root`, one a stage; a name is either absent or whole."""

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
            self.root.mkdir(parents=True, exist_ok=True)
            publish(self.path(key), data)
        except OSError as error:
            raise StoreError(f"{self.root}: cannot write the output of stage {key}: {error.strerror}") from error
        return hashlib.sha256(data).hexdigest()

    def read(self, key: str, sha256: str | None) -> bytes | None:
        """The output of a stage, or None where it is absent or no longer what was written."""
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            return None
        return data

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


def stored_keys(root: AnyPath) -> Iterator[Stored]:
    """The files of a store of stages.

    Raises:
        StoreError: the folder cannot be read.

    """
    try:
        yield from (one for one in stored_files(root) if KEY.fullmatch(one.key))
    except OSError as error:
        raise StoreError(f"{root}: cannot be read: {error.strerror}") from error
