"""How fast the networks are: latencies by runtime and batch size, and how they were taken."""

from typing import Any

import numpy as np
import pandas as pd

from orchestrator.report.plain import plain
from orchestrator.report.settings import Ints, Settings
from orchestrator.report.source import Source
from orchestrator.words import brief

MOST_SETTINGS = 200
KEY = "stage_keys.evaluate"
_KIND = ["runtime", "batch", "threads"]
_MEASURED = ("latency_ms", "latency_q1_ms", "latency_q3_ms", "latency_ratio", "latency_same_runtime_ratio",
             "runtime_agreement")  # fmt: skip
_NAMED = 5


def latency(source: Source, found: Settings, drawn: Ints) -> dict[str, Any]:
    """Each runtime and batch size: over all networks, and for the settings on the front and the baselines.

    `drawn` are the numbers of the settings that the report holds one by one; a setting is told by its place in them.
    """
    if isinstance(source.latency, str):
        return {"why": source.latency}
    if source.latency.empty:
        return {"why": "No latency was measured; a section `latency` in the study's base asks for it."}
    rows = source.latency.assign(**{name: float("nan") for name in _MEASURED if name not in source.latency.columns})
    return {
        "kinds": [_kind(own) for _, own in rows.groupby(_KIND, sort=True)],
        "settings": _settings(_joined(source, found, rows, drawn), found, drawn),
        "machines": _values(rows, "machine"),
        "versions": _values(rows, "versions"),
    }


def _kind(own: pd.DataFrame) -> dict[str, Any]:
    done = own.loc[own["status"] == "complete"]
    bad = own.loc[own["status"] != "complete"]
    errors = bad["error"].map(lambda text: brief(text) if isinstance(text, str) else "no reason was kept")
    return {
        **{name: plain(own[name].iloc[0]) for name in _KIND},
        "turns": _span(own, "repeats"),
        "calls": _span(done, "calls"),
        "networks": len(own),
        "complete": len(done),
        "median": plain(done["latency_ms"].median()),
        "least": plain(done["latency_ms"].min()),
        "most": plain(done["latency_ms"].max()),
        "ratio": plain(done["latency_ratio"].median()),
        "same": plain(done["latency_same_runtime_ratio"].median()),
        "agreement": plain(done["runtime_agreement"].min()),
        "errors": [f"{count} {text}" for text, count in errors.value_counts().head(_NAMED).items()],
    }


def _joined(source: Source, found: Settings, rows: pd.DataFrame, drawn: Ints) -> pd.DataFrame:
    """The latencies of each setting on the front and of the baselines; a network of two settings stands in both."""
    if KEY not in source.trials.columns:
        return rows.iloc[:0].assign(setting=0)
    wanted = (found.table["front"] | (found.table["role"] == "baseline")).to_numpy()
    networks = pd.DataFrame({"setting": found.number, KEY: source.trials[KEY].to_numpy()}).dropna().drop_duplicates()
    networks = networks.loc[networks["setting"].isin(drawn[wanted[drawn]])]
    return networks.merge(rows.loc[rows["status"] == "complete"], on=KEY)


def _settings(joined: pd.DataFrame, found: Settings, drawn: Ints) -> list[dict[str, Any]]:
    """The mean over the seeds of each measured column, by runtime and batch; the front first."""
    groups = joined.groupby(["setting", *_KIND])
    means = groups[list(_MEASURED)].mean().assign(n=groups.size()).reset_index()
    on_front = set(found.on_front.tolist())
    order = sorted(means["setting"].unique().tolist(), key=lambda setting: (setting not in on_front, setting))
    return [
        {
            "point": int(np.searchsorted(drawn, setting)),
            "values": [
                {name: plain(row[name]) for name in (*_KIND, "n", *_MEASURED)}
                for row in means.loc[means["setting"] == setting].to_dict("records")
            ],
        }
        for setting in order[:MOST_SETTINGS]
    ]


def _values(rows: pd.DataFrame, name: str) -> list[str]:
    return [str(value) for value in rows[name].dropna().unique()[:_NAMED]] if name in rows.columns else []


def _span(rows: pd.DataFrame, name: str) -> str:
    """The smallest and the largest value of a column of integers."""
    known = rows[name].dropna() if name in rows.columns else pd.Series(dtype="float64")
    if known.empty:
        return "-"
    low, high = int(known.min()), int(known.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
