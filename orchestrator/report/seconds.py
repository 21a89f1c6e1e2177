"""Where the time went, and what sharing stages between trials saved."""

from collections import Counter
from typing import Any

import pandas as pd

from orchestrator.report.plain import plain
from orchestrator.report.source import Source

KINDS = ("select", "train", "compress", "evaluate")


def seconds(source: Source) -> dict[str, Any]:
    """Busy seconds by kind of stage: `once`, as the stages ran, and `each`, had every trial run its own path.

    Only what is finished counts, in both. `wall` is the time between the first start and the last end.
    """
    if isinstance(source.stages, str):
        return {"why": source.stages}
    done = source.stages.loc[source.stages["busy_s"].notna()]
    if done.empty:
        return {"why": "No stage is finished yet."}
    once = done.groupby("stage")["busy_s"].agg(["sum", "count"])
    each = unshared(done, source.trials)
    kinds = [kind for kind in KINDS if kind in once.index]
    return {
        "kinds": [
            {
                "kind": kind,
                "stages": int(once.loc[kind, "count"]),  # pyright: ignore[reportArgumentType]
                "once": plain(once.loc[kind, "sum"]),
                "each": plain(each[kind]),
            }
            for kind in kinds
        ],
        "once": plain(once["sum"].sum()),
        "each": plain(sum(each.values())),
        "wall": plain((done["finished_at"].max() - done["started_at"].min()).total_seconds()),
        "runs": int(done["run"].nunique()),
        "failed": plain(done.loc[done["status"].isin(["failed", "infeasible"]), "busy_s"].sum()),
    }


def unshared(stages: pd.DataFrame, trials: pd.DataFrame) -> Counter[str]:
    """Busy seconds of each kind of stage, added up over the paths of all trials."""
    columns = (stages[name].tolist() for name in ("key", "parent", "stage", "busy_s"))
    known = {key: (parent, kind, busy) for key, parent, kind, busy in zip(*columns, strict=True)}
    ends = Counter(_ends(trials, known))
    # A stage counts as often as trials pass through it: counts flow from the leaves to the roots.
    visits = Counter[str]()
    for key, count in ends.items():
        here: str | None = key
        while isinstance(here, str) and here in known:
            visits[here] += count
            here = known[here][0]
    total = Counter[str]()
    for key, count in visits.items():
        _, kind, busy = known[key]
        total[kind] += count * busy
    return total


def _ends(trials: pd.DataFrame, known: "dict[str, tuple[Any, str, float]]") -> list[str]:
    """The last finished stage of each trial."""
    columns = [f"stage_keys.{kind}" for kind in reversed(KINDS) if f"stage_keys.{kind}" in trials.columns]
    paths = zip(*(trials[name].tolist() for name in columns), strict=True)
    return [end for path in paths if (end := next((key for key in path if key in known), None)) is not None]
