"""A study in parts that run anywhere and in any order, each with a driver, a lock and a ledger of its own.

A part holds whole subtrees: a root, the stage without a parent, and all below it. So no stage is of two parts, and no
dense network is trained twice.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.errors import RunError
from orchestrator.estimate import Estimator
from orchestrator.layout import Layout
from orchestrator.locks import Holder, holder
from orchestrator.plan import Plan
from orchestrator.spec.model import StudySpec


@dataclass(frozen=True, slots=True)
class Shard:
    """The part `number`, counted from 1, of as many as `of`."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def part(self, plan: Plan) -> Plan:
        """What of a plan is this shard's: perhaps nothing."""
        roots = _roots(plan)
        own = {root for root, number in _parted(plan, roots, self.of).items() if number == self.number}
        trials = tuple(trial for trial in plan.trials if trial.path[0] in own)
        return replace(plan, trials=trials, stages={k: s for k, s in plan.stages.items() if roots[k] in own})


def _roots(plan: Plan) -> dict[str, str]:
    """The root of each stage, itself for a root."""
    roots: dict[str, str] = {}
    for key, stage in plan.stages.items():
        roots[key] = key if stage.parent is None else roots[stage.parent]
    return roots


def _parted(plan: Plan, roots: Mapping[str, str], parts: int) -> dict[str, int]:
    """The part of each root: the largest subtree first, each to the part with the least to do.

    Seconds are guessed from the arithmetic alone, whatever a machine has measured: it is the same parting everywhere.
    """
    estimator, seconds = Estimator(), defaultdict[str, float](float)
    for key, stage in plan.stages.items():
        seconds[roots[key]] += estimator.estimate(stage).seconds
    loads = [(0.0, number) for number in range(1, parts + 1)]
    found: dict[str, int] = {}
    for root in sorted(seconds, key=lambda root: (-seconds[root], root)):
        load, number = loads[0]
        heapq.heapreplace(loads, (load + seconds[root], number))
        found[root] = number
    return found


def check_parted(spec: StudySpec) -> None:
    """Refuse to part a study whose trials are not all known before it runs, or are compared while it runs.

    Raises:
        RunError: it is such a study.

    """
    search = spec.search
    if search.sampled:
        why = f"search {search.name} asks for one config after the other, in the light of all that is known"
    elif search.repeats == "adaptive":
        why = "search.repeats adaptive decides on seeds in the light of all other trials"
    elif search.rungs:
        why = "search.rungs compare a trial with all others while they run"
    else:
        return
    raise RunError(f"--shard: {why}, so study {spec.study} cannot be parted; sweep it without --shard")


def lock_name(study: str, shard: Shard | None) -> str:
    """Name of the lock of a whole study, or of a part of it."""
    return study if shard is None else f"{study}@{shard.number}of{shard.of}"


def runner_of(layout: Layout, study: str, but: str | None = None) -> Holder | None:
    """Who runs the study, or a part of it, at this moment, if anyone; whoever holds the lock `but` is left out."""
    names = (name for name in layout.locks(study) if name != but)
    return next((found for name in names if (found := holder(layout.lock(name)))), None)


def locked_studies(layout: Layout) -> frozenset[str]:
    """Studies of which a lock was ever taken, of all or a part; locks of other things begin with an underscore."""
    names = (path.name for path in layout.lock("any").parent.glob("*"))
    return frozenset(name.partition("@")[0] for name in names if name[0].isalnum())


def check_alone(layout: Layout, study: str, shard: Shard | None) -> None:
    """Refuse to run the whole beside a part, or parts of two partings beside each other: they would do the same work.

    Raises:
        RunError: a sweep runs whose stages this one would run too.

    """
    own = lock_name(study, shard)
    for name in layout.locks(study):
        fits = shard is not None and name.endswith(f"of{shard.of}")
        if name != own and not fits and (other := holder(layout.lock(name))):
            what = name.partition("@")[2].replace("of", "/")
            raise RunError(
                f"{f'shard {what} of study {study}' if what else f'study {study} as a whole'} is being run by process "
                f"{other.pid} on {other.host}: wait for it or stop it"
            )
