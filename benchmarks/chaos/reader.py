"""Someone who reads a results root all the time while others write and die."""

import io
import threading
import time
from pathlib import Path
from types import TracebackType

import pandas as pd
import pyarrow as pa

from benchmarks.chaos.reference import Reference, sha256
from benchmarks.chaos.tally import Tally

PAUSE_S = 0.01
_DIGEST_BYTES = 32


class Reader:
    """Reads tables and outputs in a thread; a name must never be in part, never vanish, never hold another content."""

    def __init__(self, root: Path, study: str, reference: Reference, tally: Tally) -> None:
        self._root = root
        self._study = root / study
        self._reference = reference
        self._tally = tally
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read_on)
        self._fault: BaseException | None = None

    def __enter__(self) -> "Reader":
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Stop; a fault of the reader's own is raised here."""
        self._ended.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _read_on(self) -> None:
        try:
            while not self._ended.is_set():
                self.look()
                time.sleep(PAUSE_S)
        except BaseException as error:
            self._fault = error

    def look(self) -> None:
        """Read whatever has changed since the last time."""
        for path in [
            *self._study.glob("*"),
            *self._root.glob(".store/artifacts/*"),
            *self._root.glob(".store/checkpoints/*"),
        ]:
            if not path.name.startswith("."):
                self._look_at(path)
        for path in list(self._seen):
            if path.parent.name != "checkpoints" and not path.exists():
                self._tally.lose("partial", f"{path.name} was there and is gone")
                del self._seen[path]

    def _look_at(self, path: Path) -> None:
        try:
            state = path.stat()
            data = path.read_bytes()
        except FileNotFoundError:
            return
        stamp = state.st_ino, state.st_mtime_ns, state.st_size
        if self._seen.get(path) == stamp:
            return
        self._seen[path] = stamp
        self._tally.reads += 1
        fault = self._fault_in(path, data)
        if fault:
            self._tally.lose("partial", f"{path.name}: {fault}")

    def _fault_in(self, path: Path, data: bytes) -> str:
        if path.suffix == ".parquet":
            return self._fault_in_table(path.name, data)
        if path.parent.name == "artifacts":
            right = self._reference.outputs.get(path.name)
            return "" if right == sha256(data) else f"{len(data)} bytes that are not those of the stage"
        if path.parent.name == "checkpoints":
            whole = sha256(data[_DIGEST_BYTES:]) == data[:_DIGEST_BYTES].hex()
            return "" if whole else f"{len(data)} bytes that are no checkpoint"
        if path.name == "_study.yaml":
            return "" if data == self._reference.study_file else "another study file"
        return ""

    def _fault_in_table(self, name: str, data: bytes) -> str:
        try:
            frame = pd.read_parquet(io.BytesIO(data))
        except (OSError, pa.ArrowException) as error:
            return str(error)
        return "; ".join(self._reference.contradicted_by(frame)) if name == "trials.parquet" else ""
