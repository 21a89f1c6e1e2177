"""A study's tables -> what its report shows, as one JSON object. Everything is computed here; the page only draws."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.analysis.objectives import DEFAULT_OBJECTIVES, Objective
from orchestrator.analysis.rows import equals
from orchestrator.report import effects, latency, learning, provenance, rows, seconds, settings
from orchestrator.report.bounds import within
from orchestrator.report.source import Source, objectives_of
from orchestrator.words import LEFT_OUT

NO_SETTING = "no setting keeps that"


def payload(source: Source, asked: Mapping[str, object]) -> dict[str, Any]:
    """All that the page shows; `asked` are the objectives that the user names in place of the study's.

    Raises:
        TableError: a wrong objective, or trials that cannot be told apart.

    """
    objectives = objectives_of(source, asked)
    found = settings.settings_of(source, objectives)
    numbers = settings.drawn(found)
    positions = rows.chosen(source.trials, found, numbers)
    place = np.full(len(source.trials), -1, dtype=np.int64)
    place[positions] = np.arange(len(positions))
    return {
        "study": _study(source),
        "damaged": list(source.left_out),
        "counts": provenance.counts(source.trials),
        "objectives": [_objective(one) for one in objectives],
        "remarks": [*remarks(source, objectives), *seeds_told(source, found)],
        "left_out": {LEFT_OUT.get(why, why): count for why, count in found.left_out.items() if count},
        "axes": list(found.axes),
        "drawn_axes": list(found.sampled),
        "log_axes": [name for name, one in found.sampled.items() if one.log],
        "measured": list(found.measured),
        "pairs": settings.pairs(objectives, found.measured),
        "points": settings.points(found, numbers, place),
        "rasters": settings.rasters(found, objectives),
        "effects": effects.effects(source.trials, found, objectives, adaptive=source.study.over == "expected"),
        "labelling": learning.labelling(source.trials),
        "training": learning.training(source, found),
        "seconds": seconds.seconds(source),
        "latency": latency.latency(source, found, numbers),
        "failures": provenance.failures(source.trials),
        "rows": rows.rows(source.trials, found, positions),
        "table": {"n": len(positions), "of": len(source.trials)},
        "shown": rows.first_shown(source.trials, found.axes, found.measured),
        "columns": rows.described(source.trials),
        "provenance": provenance.provenance(source),
        "times": provenance.times(source),
    }


def _study(source: Source) -> dict[str, Any]:
    names = [str(name) for name in source.trials["study"].dropna().unique()]
    return {
        "name": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        "question": source.study.spec.question if source.study.spec is not None else "",
        "text": source.study.text,
        "why": source.study.unread,
        "path": source.path,
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        "version": version("sweep-orchestrator"),
        **_export(source),
    }


def _export(source: Source) -> dict[str, Any]:
    """How a trial is exported: the words around its id, and whether the store is there."""
    root = source.folder.parent if source.folder is not None else None
    told = "" if root is None or root == Path("results") else f" --results {shlex.quote(str(root))}"
    there = root is not None and (root / ".store").is_dir()
    return {"export": ["orchestrator export ", f" --format packed{told}"], "store": there}


def _objective(one: Objective) -> dict[str, Any]:
    amount = f"{100 * one.tolerance:g} %" if one.relative else f"{one.tolerance:g}"
    return {"name": one.column, "direction": one.direction, "within": amount if one.tolerance else ""}


def remarks(source: Source, objectives: Sequence[Objective]) -> list[str]:
    """What a reader of the front must know: objectives without a value, and bounds of the study that it keeps to."""
    taken = [one.column for one in objectives]
    usual = DEFAULT_OBJECTIVES if source.study.spec is None else ()
    complete = source.trials.loc[equals(source.trials, "status", "complete")]
    found = [
        f"{name} has no value in any trial{'' if name in taken else ' and is left out'}"
        for name in dict.fromkeys([*taken, *usual])
        if len(complete) and (name not in complete.columns or complete[name].isna().all())
    ]
    if where := source.study.where:
        bounds = " and ".join(map(str, where))
        kept = "the front is taken among the settings that keep it" if _keeps(source) else NO_SETTING
        found.append(f"The study asks for {bounds}; {kept}.")
    return found


def _keeps(source: Source) -> bool:
    """Whether any setting keeps the bounds of the search."""
    cells = source.trials.loc[equals(source.trials, "role", "cell")]
    return not within(cells, source.study.where).empty


def seeds_told(source: Source, found: settings.Settings) -> list[str]:
    """How settings with more seeds or fewer were compared."""
    cells = found.table.loc[found.table["role"] == "cell", "n_seeds"].dropna()
    if cells.empty or cells.min() == cells.max():
        return []
    told = f"Settings have {int(cells.min())} to {int(cells.max())} complete seeds"
    if source.study.over == "expected":
        return [f"{told}; the front is that of the means which all seeds are expected to give."]
    return [f"{told}; the front is that of their plain means."]


def said(found: Mapping[str, Any]) -> Sequence[str]:
    """What a terminal is told of a payload."""
    counts, points = found["counts"], found["points"]
    bad = [f"{counts[name]:,} {name}" for name in ("failed", "infeasible", "stopped", "unfinished") if counts[name]]
    lines = [f"{counts['trials']:,} trials, {counts['complete']:,} complete{''.join(f', {text}' for text in bad)}"]
    front = sum(points["front"])
    if front:
        lines.append(f"front: {front:,} of {points['of']:,} settings, means over the seeds")
    elif not any(NO_SETTING in remark for remark in found["remarks"]):
        lines.append("no trial has all objectives yet, so there is no front")
    return [*lines, *found["remarks"]]
