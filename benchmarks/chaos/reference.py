"""What a study gives when nobody touches it: the measure of every run that was."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator.analysis import tables
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay

IDENTITY: Mapping[str, tuple[str, ...]] = {
    "trials.parquet": ("trial_id",),
    "_stages.parquet": ("key",),
    "_history.parquet": ("key", "epoch", "round"),
}
"""The tables that runs are compared by, and what names a row of each."""

_COLUMNS: Mapping[str, Mapping[str, tables.Column]] = {
    "trials.parquet": tables.COLUMNS,
    "_stages.parquet": tables.STAGE_COLUMNS,
    "_history.parquet": tables.HISTORY_COLUMNS,
}

DEPENDENT = ("_accuracy", "_drop", "_gain")
"""Ends of the columns that stay null until a baseline has finished too."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Tables by file name with their deterministic columns, and SHA-256 of each output; `seconds` is what it took."""

    frames: Mapping[str, pd.DataFrame]
    outputs: Mapping[str, str]
    study_file: bytes
    seconds: float

    @staticmethod
    def of(root: Path, study: str, seconds: float) -> "Reference":
        """Of a results root in which the study is finished."""
        outputs = {key: record.artifact_sha256 or "" for key, record in finished(root).items()}
        frames = {name: deterministic(root / study / name) for name in IDENTITY}
        return Reference(frames, outputs, (root / study / "_study.yaml").read_bytes(), seconds)

    def differing(self, root: Path, study: str) -> list[str]:
        """Rows of the study's tables that are not these, each in a few words."""
        found: list[str] = []
        for name, expected in self.frames.items():
            try:
                frame = deterministic(root / study / name)
            except OSError as error:
                found.append(f"{name}: {error}")
                continue
            found += [f"{name}: {text}" for text in _differences(frame, expected)]
        return found

    def contradicted_by(self, frame: pd.DataFrame) -> list[str]:
        """Complete rows of a table of trials whose values are others; what waits for a baseline may be null."""
        expected = self.frames["trials.parquet"]
        rows = frame[frame["status"] == "complete"]
        rows = _chosen(rows).set_index("trial_id")
        known = expected.set_index("trial_id")
        found = [f"trial {trial} is not of this study" for trial in rows.index.difference(known.index)]
        for trial in rows.index.intersection(known.index):
            for column in rows.columns.intersection(known.columns):
                value, right = rows.at[trial, column], known.at[trial, column]
                waits = column.endswith(DEPENDENT) and _is_null(value)
                if not (waits or _same(value, right)):
                    found.append(f"trial {trial}: {column} is {value}, not {right}")
        return found


def finished(root: Path) -> Mapping[str, StageRecord]:
    """Complete stages in the ledgers of a root."""
    records = replay(Layout(root).ledger).records
    return {key: record for key, record in records.items() if record.status == "complete"}


def deterministic(path: Path) -> pd.DataFrame:
    """The deterministic columns of a table, in an order of their own."""
    frame = _chosen(pd.read_parquet(path), path.name)
    return frame.sort_values([name for name in IDENTITY[path.name] if name in frame.columns]).reset_index(drop=True)


def sha256(data: bytes) -> str:
    """Of bytes, as the ledger has it."""
    return hashlib.sha256(data).hexdigest()


def _chosen(frame: pd.DataFrame, table: str = "trials.parquet") -> pd.DataFrame:
    known = _COLUMNS[table]
    return frame[[name for name in frame.columns if name not in known or known[name].deterministic]]


def _differences(frame: pd.DataFrame, expected: pd.DataFrame) -> list[str]:
    if list(frame.columns) != list(expected.columns):
        return [f"columns {sorted(set(frame.columns) ^ set(expected.columns))}"]
    if len(frame) != len(expected):
        return [f"{len(frame)} rows, not {len(expected)}"] * abs(len(frame) - len(expected))
    equal = (frame == expected) | (frame.isna() & expected.isna())
    wrong = equal[~equal.all(axis=1)]
    return [f"row {row}: {', '.join(equal.columns[~equal.loc[row]])}" for row in wrong.index]


def _same(value: object, right: object) -> bool:
    return value == right or (_is_null(value) and _is_null(right))


def _is_null(value: object) -> bool:
    return value is None or value is pd.NA or value != value
