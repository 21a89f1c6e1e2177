"""What the labelling loop keeps on disk: the labels file, proposals, and its rounds under the results root."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.durable import publish
from orchestrator.errors import RunError, StoreError
from trainables.data.labels import COLUMNS, plain, read_labels

BOM = "\ufeff"
RESTART = "--restart keeps the labels and begins a new trajectory from them"


class StoredRound(BaseModel):
    """A round that was proposed.

    `images` are those of the whole trajectory with their SHA-256, in the order of labelling; the last `asked` of them
    are this round's. `settings` are the leaves that shape the trajectory, `query_sizes` what each round up to this one
    asks for by the study, `seconds` the busy ones of this round and `total_s` those of all. `labels` counts the labels
    when it was proposed. `trajectory` is the SHA-256 of the stored trajectory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    proposed_at: str
    settings: dict[str, Any]
    query_sizes: tuple[int, ...]
    images: tuple[tuple[str, str], ...]
    asked: int
    labels: int
    seconds: dict[str, float]
    total_s: float
    trajectory: str


class Rounds:
    """The stored rounds of a study; the newest alone keeps its trajectory, which holds the network.

    A round is there once its JSON file is: that is written last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self) -> StoredRound | None:
        """The last round; None before the first.

        Raises:
            StoreError: it cannot be read.

        """
        numbers = self._numbers()
        if not numbers:
            return None
        path = self._file(max(numbers), "json")
        try:
            return StoredRound.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is not what was written"
            raise StoreError(f"{path}: cannot be read ({what}); {RESTART}") from error

    def trajectory(self, stored: StoredRound) -> bytes:
        """The trajectory of a stored round.

        Raises:
            StoreError: it is gone or damaged.

        """
        path = self._file(stored.number, "safetensors")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); {RESTART}") from error
        if hashlib.sha256(data).hexdigest() != stored.trajectory:
            raise StoreError(f"{path}: is not what was written; {RESTART}")
        return data

    def add(self, stored: StoredRound, trajectory: bytes) -> None:
        """Keep a new round.

        Raises:
            StoreError: the folder cannot be written.

        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            publish(self._file(stored.number, "safetensors"), trajectory)
            publish(self._file(stored.number, "json"), stored.model_dump_json(indent=1).encode())
            for number in self._numbers() - {stored.number}:
                self._file(number, "safetensors").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written: {error.strerror}; name another --results") from error

    def set_aside(self) -> Path | None:
        """Give the folder another name, so that a new trajectory can begin; None where there is none."""
        if not self.folder.exists():
            return None
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        return self.folder.rename(aside)

    def _numbers(self) -> set[int]:
        names = (re.fullmatch(r"round-(\d+)\.json", path.name) for path in self.folder.glob("round-*.json"))
        return {int(name[1]) for name in names if name}

    def _file(self, number: int, suffix: str) -> Path:
        return self.folder / f"round-{number}.{suffix}"


def proposal(files: Iterable[str]) -> str:
    """CSV with an empty label for each file."""
    return "".join(_row(row, "\n") for row in (COLUMNS, *((file, "") for file in files)))


def write_proposal(path: Path, text: str, labels_file: Path, known: Mapping[str, str]) -> None:
    """Write a proposal, but never over something else, nor over answers that the labels file has not.

    Raises:
        RunError: something else is there.
        StoreError: the file cannot be written.

    """
    if path.exists():
        unsaved = sum(known.get(file) != row.label for file, row in _rows_of(path, labels_file).items())
        if unsaved:
            msg = (
                f"{path}: answers in it that {labels_file} has not: {unsaved}; give them to `orchestrator label answer`"
            )
            raise RunError(f"{msg} first, or name another --out")
    write(path, text.encode())


def write(path: Path, data: bytes) -> None:
    """Write a file that a person asked for.

    Raises:
        StoreError: it cannot be written.

    """
    try:
        publish(path, data)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error


def _rows_of(path: Path, labels_file: Path) -> Mapping[str, Any]:
    """The labelled rows of an older proposal."""
    try:
        ours = path.resolve() != labels_file.resolve() and path.read_bytes().startswith(b"file,label")
        rows = read_labels(path, None).rows if ours else None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    if rows is None:
        raise RunError(f"{path}: is there and is no proposal of images; name another --out")
    return rows


def nameable(file: str) -> bool:
    """Whether a labels file can hold the name."""
    try:
        file.encode()
    except UnicodeEncodeError:
        return False
    return plain(file) == file


def with_answers(path: Path, answers: Mapping[str, str]) -> bytes:
    """A labels file with further labels: rows of these files are filled in, other files follow at its end.

    Every other row stays as it is, byte for byte.

    Args:
        path: of a labels file that `trainables.data.labels.read_labels` has no fault with.
        answers: label by file.

    """
    text = path.read_bytes().decode()
    mark, text = (BOM, text[1:]) if text.startswith(BOM) else ("", text)
    lines = list(io.StringIO(text, newline=""))
    ending = "\r\n" if lines[0].endswith("\r\n") else "\n"
    reader = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(reader)]
    file_at, label_at = (header.index(name) for name in COLUMNS)
    parts, done, left = lines[: reader.line_num], reader.line_num, dict(answers)
    for row in reader:
        raw, done = lines[done : reader.line_num], reader.line_num
        name = plain(row[file_at]) if file_at < len(row) else ""
        if name in left:
            row += [""] * (len(header) - len(row))
            row[label_at] = left.pop(name)
            raw = [_row(row, ending)]
        parts += raw
    if not parts[-1].endswith(("\n", "\r")):
        parts.append(ending)
    new = ({file_at: file, label_at: label} for file, label in left.items())
    parts += [_row([cells.get(place, "") for place in range(len(header))], ending) for cells in new]
    return (mark + "".join(parts)).encode()


def _row(cells: Iterable[str], ending: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending).writerow(cells)
    return text.getvalue()
