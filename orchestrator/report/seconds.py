"""Where the time went, and what sharing stages between trials saved."""

from typing import Any

from orchestrator.analysis.busy import STAGES, busy_seconds
from orchestrator.report.plain import plain
from orchestrator.report.source import Source


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
    found = busy_seconds(source.trials, done)
    kinds = [kind for kind in STAGES if kind in once.index]
    return {
        "kinds": [
            {
                "kind": kind,
                "stages": int(once.loc[kind, "count"]),  # pyright: ignore[reportArgumentType]
                "once": plain(once.loc[kind, "sum"]),
                "each": plain(found[kind].each if kind in found else 0.0),
            }
            for kind in kinds
        ],
        "once": plain(once["sum"].sum()),
        "each": plain(sum(one.each for one in found.values())),
        "wall": plain((done["finished_at"].max() - done["started_at"].min()).total_seconds()),
        "runs": int(done["run"].nunique()),
        "failed": plain(done.loc[done["status"].isin(["failed", "infeasible"]), "busy_s"].sum()),
    }
