"""Where the busy seconds of a study went, and what sharing stages saved."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pandas as pd

from orchestrator.analysis.rows import need
from orchestrator.errors import TableError

STAGES = ("select", "train", "compress", "evaluate")
_SECONDS = {"train": "train_s", "compress": "compress_s", "evaluate": "measure_s"}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Busy seconds of one kind of stage: as it ran, and if each trial had run its own path."""

    once: float
    each: float


@dataclass(frozen=True, slots=True)
class _Ran:
    """What ran, by key."""

    busy: dict[str, float] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


def busy_seconds(df: pd.DataFrame, stages: pd.DataFrame | None = None) -> dict[str, Seconds]:
    """Busy seconds by kind of stage, in the order of the path; kinds that never ran are left out.

    A stage that several trials share took its seconds once; had each trial run its own path, it would have taken them
    once a trial. Stages that were cached count with what they took when they ran.

    Args:
        df: trials, as `load` gives them.
        stages: `_stages.parquet`; None takes the seconds of the trials' own columns, which do not tell the rounds of a
            selection apart.

    Raises:
        TableError: a column is absent, or a study selects images and `stages` is None.

    """
    need(df, [f"stage_keys.{kind}" for kind in _SECONDS])
    ran = _own_columns(df) if stages is None else _of_stages(stages)
    once, each = defaultdict[str, float](float), defaultdict[str, float](float)
    for key, count in sorted(_visits(df, ran).items()):  # so that the sums do not depend on the order of the rows
        once[ran.kinds[key]] += ran.busy[key]
        each[ran.kinds[key]] += count * ran.busy[key]
    return {kind: Seconds(once[kind], each[kind]) for kind in STAGES if kind in once}


def _visits(df: pd.DataFrame, ran: _Ran) -> Counter[str]:
    """How many trials pass through each stage: counts flow from the last stage that ran to the root."""
    names = [name for kind in reversed(STAGES) if (name := f"stage_keys.{kind}") in df.columns]
    columns = [df[name].tolist() for name in names]
    ends = Counter(next((key for key in path if key in ran.busy), None) for path in zip(*columns, strict=True))
    visits = Counter[str]()
    for end, count in ends.items():
        here = end
        while isinstance(here, str):
            if here in ran.busy:
                visits[here] += count
            here = ran.parents.get(here)
    return visits


def _of_stages(stages: pd.DataFrame) -> _Ran:
    need(stages, ["key", "stage", "parent", "busy_s"])
    ran = _Ran()
    columns = (stages[name].tolist() for name in ("key", "stage", "parent", "busy_s"))
    for key, kind, parent, seconds in zip(*columns, strict=True):
        ran.busy[key], ran.kinds[key] = (0.0 if seconds != seconds else float(seconds)), kind
        ran.parents[key] = parent if isinstance(parent, str) else None
    return ran


def _own_columns(df: pd.DataFrame) -> _Ran:
    if "stage_keys.select" in df.columns and df["stage_keys.select"].notna().any():
        msg = "rounds of selection share time in ways that only _stages.parquet tells; give results/<study>"
        raise TableError(msg)
    need(df, list(_SECONDS.values()))
    ran = _Ran()
    above: list[str | None] = [None] * len(df)
    for kind, column in _SECONDS.items():
        for row, (key, seconds) in enumerate(zip(df[f"stage_keys.{kind}"], df[column], strict=True)):
            if not isinstance(key, str):
                continue
            if seconds == seconds:
                ran.busy[key], ran.kinds[key] = float(seconds), kind
            ran.parents[key] = above[row]
            above[row] = key
    return ran
