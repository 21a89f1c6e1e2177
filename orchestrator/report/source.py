"""What a report reads: the table of trials and, where they lie beside it, the other tables and the study."""

import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from orchestrator.analysis.load import TABLE, load
from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective, parse_objectives
from orchestrator.analysis.parts import DamagedFileWarning
from orchestrator.analysis.tables import suggestion
from orchestrator.errors import SpecError, TableError
from orchestrator.spec.load import parse_spec
from orchestrator.spec.model import Constraint, StudySpec
from orchestrator.storage.places import AnyPath, located

STAGES, HISTORY, LATENCY = "_stages.parquet", "_history.parquet", "_latency.parquet"
STUDY = "_study.yaml"
_USED: Mapping[str, tuple[str, ...]] = {
    STAGES: (
        "key", "parent", "stage", "status", "busy_s", "started_at", "finished_at", "run", "host", "pid", "attempt",
    ),
    HISTORY: ("key", "stage", "epoch", "loss", "val_accuracy"),
    LATENCY: ("stage_keys.evaluate", "runtime", "batch", "status", "latency_ms"),
}  # fmt: skip
"""The tables beside the trials, and the columns of each that are used."""
NEEDED = ("study", "trial_id", "role", "baseline", "seed", "status", "error")

Part = pd.DataFrame | str
"""A table, or why there is none."""


@dataclass(frozen=True, slots=True)
class Study:
    """The study beside a table: its YAML, and what that says; None, and why in `unread`, where it cannot be read."""

    text: str
    spec: StudySpec | None
    unread: str

    @property
    def over(self) -> Literal["seed", "expected"]:
        """How the seeds of a setting are put together, as the sweep itself does it: see `comparison.Question`."""
        return "expected" if self.spec is not None and self.spec.search.repeats == "adaptive" else "seed"

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """Those of the study in its order; None where it cannot be read."""
        return None if self.spec is None else self.spec.seeds

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Its own, else the default ones."""
        return parse_objectives(DEFAULT_OBJECTIVES) if self.spec is None else self.spec.objectives

    @property
    def where(self) -> tuple[Constraint, ...]:
        """The bounds of its search; none where it cannot be read."""
        return () if self.spec is None else self.spec.search.where

    @property
    def warning(self) -> str:
        """Why the study there cannot be read; empty where it can, or where there is none."""
        return self.unread if "cannot be read" in self.unread else ""


@dataclass(frozen=True, slots=True)
class Source:
    """A study as it lies on disk, or elsewhere.

    `path` is what the user named; `folder` is None where that is a single file. `left_out` names the
    damaged files that were left out, as was asked.
    """

    path: str
    folder: AnyPath | None
    trials: pd.DataFrame
    stages: Part
    history: Part
    latency: Part
    study: Study
    left_out: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What lies there and was not read."""
        return (*self.left_out, *filter(None, [self.study.warning]))


def read(given: str | AnyPath, *, beside: Container[str] = _USED, skip_damaged: bool = False) -> Source:
    """The tables at `results/<study>`, or of one Parquet file.

    Args:
        given: see `load`.
        beside: the files to read beside the trials; of others it is said that they were not read.
        skip_damaged: leave files out that cannot be read; `Source.left_out` names them.

    Raises:
        TableError: there is no table of trials, it is not one that a sweep wrote, or a file is damaged.

    """
    path = located(given)
    trials, left_out = readable_trials(path, skip_damaged=skip_damaged)
    _check(trials, str(path))
    folder = folder_of(path)
    found = {name: _part(folder, name) if name in beside else f"{name} was not read." for name in _USED}
    damaged = [part for part in found.values() if isinstance(part, str) and "cannot be read" in part]
    if damaged and not skip_damaged:
        raise TableError(f"{damaged[0]} --skip-damaged leaves it out")
    return Source(
        str(path), folder, trials, found[STAGES], found[HISTORY], found[LATENCY], study_beside(path),
        (*left_out, *(f"left out: {part}" for part in damaged)),
    )  # fmt: skip


def readable_trials(path: str | AnyPath, *, skip_damaged: bool) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The trials at a path, and a line for each damaged file that was left out.

    Raises:
        TableError: as `load`.

    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamagedFileWarning)
        trials = load(path, skip_damaged=skip_damaged)
    return trials, tuple(str(one.message) for one in caught)


def folder_of(path: AnyPath) -> AnyPath | None:
    """The folder of a study's tables; None for another file.

    Raises:
        TableError: what is elsewhere cannot be reached.

    """
    try:
        if path.is_dir():
            return path
    except OSError as error:
        raise TableError(f"{path}: cannot be opened ({error.strerror})") from error
    return path.parent if path.name == TABLE else None


def _check(trials: pd.DataFrame, path: str) -> None:
    absent = [name for name in NEEDED if name not in trials.columns]
    if absent:
        raise TableError(
            f"{path}: no table of trials that a sweep wrote: it lacks the columns {', '.join(absent)}; "
            "give results/<study>, or its trials.parquet"
        )


def _part(folder: AnyPath | None, name: str) -> Part:
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


def study_beside(path: AnyPath) -> Study:
    """The study that lies beside a table."""
    folder = folder_of(path)
    if folder is None:
        return Study("", None, f"The report was made of a single file; {STUDY}, which lies beside it, was not read.")
    file = folder / STUDY
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Study("", None, f"{STUDY} is not in {folder}.")
    except OSError as error:
        return Study("", None, f"{STUDY} cannot be read: {error.strerror}")
    try:
        return Study(text, parse_spec(text, str(file)), "")
    except SpecError as error:
        return Study(text, None, f"{STUDY} cannot be read as a study of this version: {error}")


def objectives_of(source: Source, asked: Mapping[str, object]) -> tuple[Objective, ...]:
    """The objectives asked for, else those of the study, else the default ones in which the trials differ.

    Raises:
        TableError: a wrong objective, or one that is no column of the table.

    """
    names = [str(name) for name in source.trials.columns]
    if asked:
        wanted = parse_objectives(asked, also=names)
    elif source.study.spec is not None:
        wanted = source.study.objectives
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


def tables_of(path: AnyPath) -> tuple[AnyPath, ...]:
    """The files whose change makes a report out of date."""
    folder = folder_of(path)
    return (path,) if folder is None else (*sorted(folder.glob("*.parquet")), folder / STUDY)
