"""The labels file of a folder of images: CSV with the columns `file` and `label`. Needs no tensor library."""

import csv
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

COLUMNS = ("file", "label")


@dataclass(frozen=True, slots=True)
class Row:
    """A label and the line (from 1) on which it stands."""

    label: str
    line: int


@dataclass(slots=True)
class Labels:
    """The rows by file, and what is wrong with others; a file without label has no row here."""

    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    faults: list[str] = field(default_factory=list[str])


def read_labels(path: Path, images: Collection[str] | None, classes: Collection[str] = ()) -> Labels:
    """The labels of `images`, which are paths relative to their folder, with slashes.

    An image that is not listed, or whose label is empty, has none yet. Further columns are passed over.

    Args:
        path: the CSV file, in UTF-8.
        images: what may stand in the column `file`; None: anything.
        classes: what may stand in the column `label`; empty: anything.

    """
    found = Labels()
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, name, label in _rows(file):
                if fault := _fault(name, label, images, classes, lines):
                    found.faults.append(f"{path}: line {line}: {fault}")
                    continue
                lines[name] = line
                if label:
                    found.rows[name] = Row(label, line)
    except FileNotFoundError:
        found.faults.append(f"{path}: missing")
    except OSError as error:
        found.faults.append(f"{path}: cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        found.faults.append(f"{path}: not UTF-8 text; save it as CSV in UTF-8")
    except (csv.Error, _NotLabelsError) as error:
        found.faults.append(f"{path}: {error}")
    return found


class _NotLabelsError(Exception):
    """The file as a whole is none of labels."""


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """(line, file, label) of each row that is not blank."""
    reader = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(reader, [])]
    if missing := [name for name in COLUMNS if header.count(name) != 1]:
        told = ",".join(header) or "nothing"
        msg = f"line 1: the header must have the columns file,label once each; {', '.join(missing)} not in: {told}"
        other = next((mark for mark in ";\t" if mark in told), "")
        raise _NotLabelsError(msg + (f"; its columns are parted by {other!r}: save it with commas" if other else ""))
    places = [header.index(name) for name in COLUMNS]
    for row in reader:
        if row:
            name, label = (row[place].strip() if place < len(row) else "" for place in places)
            yield reader.line_num, plain(name), label


def plain(name: str) -> str:
    """The name of an image as a labels file gives it: without spaces around it, and `./a` is `a`."""
    return PurePosixPath(name.strip()).as_posix() if name.strip() else ""


def _fault(
    name: str, label: str, images: Collection[str] | None, classes: Collection[str], lines: dict[str, int]
) -> str:
    """What is wrong with a row; empty where nothing is."""
    if name in lines:
        return f"{name} is there twice (also on line {lines[name]}); keep one"
    if images is not None and name not in images:
        return f"there is no image {name or '(no name)'} in the folder"
    if label and classes and label not in classes:
        return f"label {label!r} is none of the classes {', '.join(classes)} (data.classes)"
    return ""
