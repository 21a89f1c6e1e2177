"""Stage outputs by key: written under a temporary name, hashed, then published."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from orchestrator.durable import publish
from orchestrator.errors import StoreError


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Files of bytes under `root`, one a stage; a name is either absent or whole."""

    root: Path

    def path(self, key: str) -> Path:
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
