"""Where the numbers come from, and which trials have none."""

from typing import Any

import pandas as pd

from orchestrator.report.plain import plain
from orchestrator.report.source import Source
from orchestrator.words import brief

_PLACES = ("hosts", "machine", "device", "threads", "mixed_hosts", "latency_machine", "runtime", "latency_batch")
_MOST_SAID = 12
_TRIALS_NAMED = 5


def provenance(source: Source) -> list[dict[str, Any]]:
    """What ran the trials: each column of machines and versions with its values and how many trials have them."""
    names = [str(name) for name in source.trials.columns]
    wanted = [name for name in names if name in _PLACES or name.startswith("versions.")]
    found: list[dict[str, Any]] = []
    for name in wanted:
        counts = source.trials[name].value_counts()
        if len(counts):
            values = [{"value": plain(value), "trials": int(n)} for value, n in counts.head(_MOST_SAID).items()]
            found.append({"name": name, "values": values, "more": max(0, len(counts) - _MOST_SAID)})
    return found


def times(source: Source) -> dict[str, Any]:
    """First start and last end (UTC), and the runs that took part."""
    found: dict[str, Any] = {}
    if "finished_at" in source.trials.columns:
        found["last trial finished"] = plain(source.trials["finished_at"].max())
    if isinstance(source.stages, pd.DataFrame) and len(source.stages):
        found["first stage started"] = plain(source.stages["started_at"].min())
        found["last stage finished"] = plain(source.stages["finished_at"].max())
        found["runs"] = ", ".join(map(str, source.stages["run"].dropna().unique()[:_MOST_SAID]))
        found["processes"] = int(source.stages[["host", "pid"]].drop_duplicates().shape[0])
        found["stages tried more than once"] = int((source.stages["attempt"] > 1).sum())
    return {name: value for name, value in found.items() if value is not None}


def failures(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Trials that did not get through, by status and error, the commonest first."""
    bad = trials.loc[trials["status"].isin(["failed", "infeasible", "stopped"])]
    if bad.empty:
        return []
    told = bad["error"].map(lambda text: brief(text) if isinstance(text, str) else "no error was kept")
    groups = bad.assign(error=told).groupby(["status", "error"], sort=False)
    found = [
        {
            "status": plain(rows["status"].iloc[0]),
            "error": plain(rows["error"].iloc[0]),
            "failure": plain(rows["failure"].iloc[0]) if "failure" in rows.columns else None,
            "trials": len(rows),
            "some": [str(one) for one in rows["trial_id"].head(_TRIALS_NAMED)],
        }
        for _, rows in groups
    ]
    return sorted(found, key=lambda group: -int(group["trials"]))


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by state."""
    status = trials["status"].value_counts()
    known = {str(name): int(n) for name, n in status.items()}
    return {
        "trials": len(trials),
        "cells": int((trials["role"] == "cell").sum()),
        "baselines": int((trials["role"] == "baseline").sum()),
        "seeds": int(trials["seed"].nunique()),
        **{name: known.get(name, 0) for name in ("complete", "failed", "infeasible", "stopped")},
        "unfinished": int(trials["status"].isna().sum()),
    }
