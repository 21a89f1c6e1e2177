"""The ledger of a run whose results root is elsewhere: on this machine's disk first, from there to the root.

A run's lines are appended to `<spool>/<run>.jsonl`, as they would be to a ledger on a disk. A thread puts what is new
beside the other ledgers as a segment, `<run>.<offset>.jsonl`; at the end the whole file, `<run>.jsonl`, takes the place
of its segments. What a killed run left here is brought to the root by the next one on this machine.
"""

import fcntl
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO, FileIO
from itertools import groupby
from pathlib import Path

from orchestrator.durable import Stored, stored_files
from orchestrator.errors import StoreError
from orchestrator.storage.here import spool_folder
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath

UPLOAD_EVERY_S = 5.0
UPLOAD_ROWS = 1000
"""New lines are put at the root after so long, or when there are so many."""

READERS = 16
LISTINGS = 5
"""How often a ledger folder is listed again whose segments vanish because their run ends."""

_SEGMENT = re.compile(r"(?P<run>.+)\.(?P<offset>\d{12})\.jsonl")


class Spool:
    """What one run has appended, and its way to the ledger folder `target`."""

    def __init__(self, target: RemotePath, run: str) -> None:
        self.file = spool_folder(target) / f"{run}.jsonl"
        self._target = target
        self._run = run
        self._state = threading.Condition()
        self._there = self._here = self._rows = 0
        self._ending = False
        self._fault: OSError | None = None
        self._thread: threading.Thread | None = None

    def hold(self, file: FileIO) -> None:
        """Say that this process appends to the file, which is then left alone by other runs of this machine."""
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self._thread is None:
            self._there = self._here = self.file.stat().st_size
            self._ending = False
            self._thread = threading.Thread(target=self._bring, name="ledger", daemon=True)
            self._thread.start()

    def appended(self, rows: int) -> None:
        """So many lines are on disk since the last time.

        Raises:
            StoreError: earlier ones could not be brought to the root.

        """
        with self._state:
            self._here, self._rows = self.file.stat().st_size, self._rows + rows
            self._state.notify()
            fault = self._fault
        if fault is not None:
            raise self._kept(fault)

    def close(self) -> None:
        """Bring everything to the root as one file.

        Raises:
            StoreError: it cannot be; it stays here for the next run.

        """
        if self._thread is None:
            return
        with self._state:
            self._ending = True
            self._state.notify()
        self._thread.join()
        self._thread = None
        try:
            _bring_whole(self.file, self._target)
        except OSError as error:
            raise self._kept(error) from error

    def _bring(self) -> None:
        while not self._ending:
            with self._state:
                self._state.wait_for(lambda: self._ending or self._rows >= UPLOAD_ROWS, UPLOAD_EVERY_S)
                start, end, self._rows = self._there, self._here, 0
            if self._ending or start == end:
                continue
            try:
                with self.file.open("rb") as file:
                    file.seek(start)
                    lines = file.read(end - start)
                (self._target / f"{self._run}.{start:012}.jsonl").write_bytes(lines)
            except OSError as error:
                self._fault = error
                return
            self._there = end

    def _kept(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._target}: cannot be written: {error.strerror}. What was finished is kept in {self.file}; "
            "the same command on this machine takes it from there and goes on"
        )


def bring_left(root: AnyPath) -> int:
    """Bring what killed runs of this machine have left to their root, and return of how many runs; of a disk, none.

    Raises:
        StoreError: it cannot be brought.

    """
    if not isinstance(root, RemotePath):
        return 0
    brought = 0
    for file in sorted(spool_folder(root).glob("*.jsonl")):
        with file.open("rb") as held:
            try:
                fcntl.flock(held.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            try:
                brought += _bring_whole(file, root)
            except OSError as error:
                raise StoreError(f"{root}: cannot be written: {error.strerror}; {file} waits for it") from error
            file.unlink(missing_ok=True)
    return brought


def _bring_whole(file: Path, target: RemotePath) -> bool:
    """Put a run's file at the root in place of its segments; whether there was something new in it."""
    whole, size = target / file.name, file.stat().st_size
    new = _size(whole) != size
    if new:
        whole.write_bytes(file.read_bytes())
    for path, _ in list(target.files()):
        found = _SEGMENT.fullmatch(path.name)
        if found and found["run"] == file.stem:
            with suppress(OSError):  # a segment that stays is passed over
                path.unlink(missing_ok=True)
    return new


def _size(path: RemotePath) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def ledgers(root: AnyPath) -> Iterator[tuple[AnyPath, Iterable[bytes]]]:
    """The ledgers of a results root and their lines, in the order of their names.

    Raises:
        OSError: one cannot be read.

    """
    if not isinstance(root, RemotePath):
        for path in sorted(root.glob("*.jsonl")):
            with path.open("rb") as lines:
                yield path, lines
        return
    for left in reversed(range(LISTINGS)):
        paths = [root / name for name in current(list(stored_files(root)))]
        try:
            with ThreadPoolExecutor(READERS) as pool:
                found = list(pool.map(RemotePath.read_fixed, paths))
        except FileNotFoundError:
            if not left:
                raise
            continue
        yield from ((path, BytesIO(data)) for path, data in zip(paths, found, strict=True))
        return


def whole_ledgers(root: AnyPath) -> Iterator[tuple[str, bytes]]:
    """Each run and its ledger in one piece, in the order of their names; of a run that goes on, what is there.

    Raises:
        StoreError: one cannot be read.

    """
    try:
        # Segments of a run stand beside each other.
        for run, parts in groupby(ledgers(root), lambda part: _run_of(part[0].name)):
            yield run, b"".join(line for _, lines in parts for line in lines)
    except OSError as error:
        raise StoreError(f"{root}: cannot be read: {error.strerror}") from error


def whole_ledger(root: AnyPath, run: str) -> bytes:
    """What is there of one run's ledger; nothing where there is none.

    Raises:
        StoreError: it cannot be read.

    """
    whole = root / f"{run}.jsonl"
    try:
        if whole.exists():
            return whole.read_bytes()
        names = (name for name in current(list(stored_files(root))) if _run_of(name) == run)
        return b"".join((root / name).read_bytes() for name in names)
    except OSError as error:
        raise StoreError(f"{root}: cannot be read: {error.strerror}") from error


def _run_of(name: str) -> str:
    found = _SEGMENT.fullmatch(name)
    return found["run"] if found else name.removesuffix(".jsonl")


def current(files: Sequence[Stored]) -> list[str]:
    """The names of ledgers, but for segments whose lines are in the whole file of their run by now."""
    sizes = {one.key.removesuffix(".jsonl"): one.bytes for one in files}
    names = sorted(one.key for one in files if one.key.endswith(".jsonl"))
    found = ((name, _SEGMENT.fullmatch(name)) for name in names)
    return [name for name, part in found if part is None or int(part["offset"]) >= sizes.get(part["run"], 0)]
