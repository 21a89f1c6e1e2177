"""What a failed stage is given when it is tried again, and whether it is. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from orchestrator.failures import Failure, Retried
from orchestrator.ledger import StageRecord
from orchestrator.runner.packing import GpuNeeds
from orchestrator.spec.resources import Demand, Resources, Retry
from trainables.keys import Stage


class Retries:
    """The failures of one run so far, by stage, and what follows from them.

    `most_memory` are the bytes that the largest machine has: a stage is not tried with more.
    """

    def __init__(self, rules: Retry | None = None, resources: Resources | None = None) -> None:
        self.most_memory: int | None = None
        self.needs = GpuNeeds()
        self._rules = rules or Retry()
        self._resources = resources or Resources()
        self._failures: defaultdict[str, list[Failure]] = defaultdict(list)
        self._raised: dict[str, Demand] = {}

    def demand(self, stage: Stage) -> Demand:
        """What the next attempt is given."""
        if stage.key in self._raised:
            return self._raised[stage.key]
        demand = self._resources.of(stage.kind)
        return replace(demand, gpus=self.needs.share(stage)) if demand.packed else demand

    def attempt(self, key: str) -> int:
        """The number of the next attempt, from 1."""
        return len(self.earlier(key)) + 1

    def earlier(self, key: str) -> Sequence[Failure]:
        """How the attempts so far failed."""
        return tuple(self._failures[key]) if key in self._failures else ()

    def again(self, stage: Stage, failure: Failure) -> bool:
        """Take a failed attempt into account; whether there is to be another."""
        allowed = self._rules.times.get(cast("Retried", failure), 0)
        before = self.earlier(stage.key).count(failure)
        if before >= allowed:
            return False
        demand = self._more(self.demand(stage), failure)
        if demand is None:
            return False
        self._failures[stage.key].append(failure)
        self._raised[stage.key] = demand
        return True

    def _more(self, demand: Demand, failure: Failure) -> Demand | None:
        """What is given after such a failure; None where there is no more to be had."""
        if failure == "oom":
            return self._more_memory(demand)
        if failure == "timeout" and self._rules.timeouts_s and demand.timeout_s is not None:
            longer = next((step for step in self._rules.timeouts_s if step > (demand.timeout_s or 0)), None)
            return None if longer is None else replace(demand, timeout_s=longer)
        return demand

    def _more_memory(self, demand: Demand) -> Demand | None:
        if demand.packed:
            demand = replace(demand, gpus=1.0, packed=False)
        had = demand.memory
        if self._rules.memory:
            more = next((step for step in self._rules.memory if step > (had or 0)), None)
            if more is None:
                return None
        elif had is None:
            return demand
        else:
            more = 2 * had
        if self.most_memory is not None and more > self.most_memory:
            return None
        return replace(demand, memory=more)


def is_settled(record: StageRecord, resources: Resources, rules: Retry) -> bool:
    """Whether a later run of the stage, with what the study now gives at most, could not change the outcome."""
    if record.settled:
        return True
    demand = resources.of(record.kind) if record.kind != "latency" else resources.worker  # pyright: ignore[reportArgumentType]
    if record.failure == "oom" and record.memory_limit is not None and demand.memory is not None:
        doublings = 0 if rules.memory else rules.times["oom"]
        return max(demand.memory << doublings, *rules.memory, 0) <= record.memory_limit
    if record.failure == "timeout" and record.timeout_s is not None and demand.timeout_s is not None:
        return max(demand.timeout_s, *rules.timeouts_s, 0) <= record.timeout_s
    return False
