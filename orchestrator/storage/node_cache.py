"""What a machine has fetched from elsewhere: one copy for all its processes, checked, and bounded in bytes.

A name in it says what the content is, so that nothing in it can be out of date. It is never needed: where its folder
cannot be written to, what was fetched is used all the same.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainables.data.whole import write_whole

USUAL_GIB = 20.0
LOCKS = 64
"""Files that are locked while something is fetched; what shares one is fetched one after the other."""


@dataclass(frozen=True, slots=True)
class NodeCache:
    """Files under `folder`, those used longest ago removed where they are more than `most_bytes` together."""

    folder: Path
    most_bytes: int

    def read(self, name: str, sha256: str, fetch: Callable[[], bytes]) -> bytes | None:
        """The bytes with this sum; fetched where they are not here, by one process at a time.

        Returns:
            None where what was fetched has another sum.

        Raises:
            OSError: as `fetch` does.

        """
        if (found := self._found(name, sha256)) is not None:
            return found
        with self._alone(name):
            if (found := self._found(name, sha256)) is not None:
                return found
            data = fetch()
            if hashlib.sha256(data).hexdigest() != sha256:
                return None
            self.put(name, data)
            return data

    def put(self, name: str, data: bytes) -> None:
        """Keep what is known to be right."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.file(name), [data])
            self._trim(self.file(name))

    def file(self, name: str) -> Path:
        """Where the bytes lie, or would."""
        return self.folder / name

    def _found(self, name: str, sha256: str) -> bytes | None:
        try:
            data = self.file(name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        with suppress(OSError):
            os.utime(self.file(name))
        return data

    def _trim(self, newest: Path) -> None:
        files = [(entry.stat(), Path(entry.path)) for entry in os.scandir(self.folder) if entry.is_file()]
        left = sum(facts.st_size for facts, _ in files)
        for facts, path in sorted(files, key=lambda one: one[0].st_mtime_ns):
            if left <= self.most_bytes:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                left -= facts.st_size

    @contextmanager
    def _alone(self, name: str) -> Generator[None]:
        number = int(hashlib.sha256(name.encode()).hexdigest(), 16) % LOCKS
        with alone(self.folder / "locks" / str(number)):
            yield


@contextmanager
def alone(lock: Path) -> Generator[None]:
    """One process of this machine at a time; where no lock can be made, all at once."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def most_bytes() -> int:
    """How large the cache of this machine may be: `ORCHESTRATOR_CACHE_GIB`, else the usual."""
    try:
        return int(float(os.environ.get("ORCHESTRATOR_CACHE_GIB", USUAL_GIB)) * 2**30)
    except ValueError:
        return int(USUAL_GIB * 2**30)
