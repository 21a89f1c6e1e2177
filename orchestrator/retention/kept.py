"""What a study keeps after its end, by its key `artifacts: {keep: ...}`."""

from collections.abc import Set

from orchestrator.errors import TableError
from orchestrator.layout import Layout
from orchestrator.plan import Plan, Trial
from orchestrator.spec.model import StudySpec

PARENTS = frozenset({"select", "train"})
"""What further cells would start from: labelled images and dense networks."""


def kept(plan: Plan, layout: Layout) -> Set[str]:
    """Keys of the stages of an ended study whose outputs stay.

    `front`: all stages of the trials on the front, and the dense networks that they are timed against; where there is
    no front, all. What is evicted is computed again where it is needed.
    """
    everything = frozenset(plan.stages)
    if plan.spec.keep == "parents":
        return frozenset(key for key, stage in plan.stages.items() if stage.kind in PARENTS)
    if plan.spec.keep == "front":
        members = _members(plan.spec, layout)
        return _paths([trial for trial in plan.trials if trial.id in members], plan) if members else everything
    return everything


def _paths(trials: list[Trial], plan: Plan) -> Set[str]:
    dense = (trial.baselines.get("dense") for trial in trials)
    timed = {key for key in dense if key in plan.stages and key is not None}
    return timed.union(*(trial.path for trial in trials))


def _members(spec: StudySpec, layout: Layout) -> frozenset[str]:
    """Ids of the trials on the front that a sweep ends with, all seeds of each config; none where there is no front."""
    from orchestrator.analysis.load import load
    from orchestrator.analysis.repeats import cell_keys

    over = "seed" if spec.search.repeats == "full" else "expected"
    try:
        df = load(layout.study(spec.study))
        front = df.pareto.front(spec.objectives, over=over, seeds=None if over == "seed" else spec.seeds)
        keys = [name for name in cell_keys(df) if name in front.columns]
        return frozenset(df.merge(front[keys].drop_duplicates(), on=keys)["trial_id"])
    except TableError:
        return frozenset()
