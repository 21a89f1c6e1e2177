"""What a report reads: the table of trials and, where they lie beside it, those of stages and epochs and the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator.analysis.load import TABLE, load
from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective, parse_objectives
from orchestrator.analysis.tables import suggestion
from orchestrator.errors import SpecError, TableError
from orchestrator.spec.load import load_spec
from orchestrator.spec.model import StudySpec

STAGES, HISTORY, STUDY = "_stages.parquet", "_history.parquet", "_study.yaml"
_USED = {
    STAGES: (
        "key",
        "parent",
        "stage",
        "status",
        "busy_s",
        "started_at",
        "finished_at",
        "run",
        "host",
        "pid",
        "attempt",
    ),
    HISTORY: ("key", "stage", "epoch", "loss", "val_accuracy"),
}
NEEDED = ("study", "trial_id", "role", "baseline", "seed", "status", "error")

Part = pd.DataFrame | str
"""A table, or why there is none."""


@dataclass(frozen=True, slots=True)
class Source:
    """A study as it lies on disk.

    `path` is what the user named; `folder` is None where that is a single file or no local one. `text` is the study's
    YAML; `spec` what it says, None with the reason in `unread` where it cannot be read.
    """

    path: str
    folder: Path | None
    trials: pd.DataFrame
    stages: Part
    history: Part
    text: str
    spec: StudySpec | None
    unread: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What lies there and cannot be read."""
        found = [part for part in (self.stages, self.history) if isinstance(part, str)]
        return tuple(why for why in (*found, self.unread) if why and "cannot be read" in why)


def read(path: str) -> Source:
    """The tables at `results/<study>`, or of one Parquet file.

    Raises:
        TableError: there is no table of trials, it is damaged, or it is not one that a sweep wrote.

    """
    trials = load(path)
    _check(trials, path)
    folder = folder_of(path)
    text, spec, unread = _study(folder)
    return Source(path, folder, trials, _part(folder, STAGES), _part(folder, HISTORY), text, spec, unread)


def folder_of(path: str) -> Path | None:
    """The folder of a study's tables; None for another file, and for what is not on this machine's disks."""
    given = Path(path)
    if "://" in path:
        return None
    if given.is_dir():
        return given
    return given.parent if given.name == TABLE else None


def _check(trials: pd.DataFrame, path: str) -> None:
    absent = [name for name in NEEDED if name not in trials.columns]
    if absent:
        raise TableError(
            f"{path}: no table of trials that a sweep wrote: it lacks the columns {', '.join(absent)}; "
            "give results/<study>, or its trials.parquet"
        )


def _part(folder: Path | None, name: str) -> Part:
    if folder is None:
        return f"The report was made of a single file; {name}, which lies beside it in results/<study>, was not read."
    if not (folder / name).exists():
        return f"{name} is not in {folder}."
    try:
        table = load(folder / name)
    except TableError as error:
        return f"{name} cannot be read: {error}"
    absent = [column for column in _USED[name] if column not in table.columns]
    return f"{name} cannot be read: it lacks the columns {', '.join(absent)}" if absent else table


def _study(folder: Path | None) -> tuple[str, StudySpec | None, str]:
    """Text, meaning, and why there is none."""
    if folder is None:
        return "", None, f"The report was made of a single file; {STUDY}, which lies beside it, was not read."
    path = folder / STUDY
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "", None, f"{STUDY} is not in {folder}."
    except OSError as error:
        return "", None, f"{STUDY} cannot be read: {error.strerror}"
    try:
        return text, load_spec(str(path)), ""
    except SpecError as error:
        return text, None, f"{STUDY} cannot be read as a study of this version: {error}"


def studied_objectives(path: str) -> tuple[tuple[Objective, ...], str]:
    """The objectives of the study beside a table, else the default ones; and why the study there cannot be read."""
    _, spec, unread = _study(folder_of(path))
    wanted = spec.objectives if spec is not None else parse_objectives(DEFAULT_OBJECTIVES)
    return wanted, unread if "cannot be read" in unread else ""


def objectives_of(source: Source, asked: Mapping[str, object]) -> tuple[Objective, ...]:
    """The objectives asked for, else those of the study, else the default ones in which the trials differ.

    Raises:
        TableError: a wrong objective, or one that is no column of the table.

    """
    names = [str(name) for name in source.trials.columns]
    if asked:
        wanted = parse_objectives(asked, also=names)
    elif source.spec is not None:
        wanted = source.spec.objectives
    else:
        wanted = parse_objectives(_differing(source.trials))
    for one in wanted:
        if one.column not in names:
            near = suggestion(one.column, names)
            raise TableError(f"{source.path}: no column {one.column!r}, which is an objective{near}")
    return wanted


def _differing(trials: pd.DataFrame) -> Mapping[str, object]:
    possible = {**DEFAULT_OBJECTIVES, "labels": "min"}
    cells = trials.loc[(trials["role"] == "cell") & (trials["status"] == "complete")]
    there = [name for name in possible if name in cells.columns and cells[name].notna().all()]
    found = {name: possible[name] for name in there if _differs(cells[name])}
    return found or {"accuracy": "max"}


def _differs(column: pd.Series) -> bool:
    """By more than the bytes of a manifest; what some cells lack would leave them out of the front."""
    return column.nunique() > 1 and bool(column.max() - column.min() > 0.01 * abs(column.mean()))


def tables_of(path: str) -> tuple[Path, ...]:
    """The files whose change makes a report out of date."""
    folder = folder_of(path)
    return (Path(path),) if folder is None else (*sorted(folder.glob("*.parquet")), folder / STUDY)
