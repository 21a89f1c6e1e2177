"""10,000 GPUs and a million trials of a minute, by a virtual clock: what saturates, and how many parts it takes.

    uv run python -m benchmarks.scale_simulation            (a few minutes)

A discrete-event simulation of one part of the study, all parts being alike: the real `Schedule` hands out the tasks;
workers, the driver and the store are a clock. The driver, with Tune's loop, does one thing at a time: it is a queue. A
worker waits from the end of its task until the driver has taken its records and handed it the next.
"""

import argparse
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from orchestrator.estimate import Estimator, workload
from orchestrator.ledger import StageRecord
from orchestrator.runner.schedule import Schedule
from orchestrator.runner.task import Task
from trainables.config import DataConfig, ModelConfig, TrainConfig, TrialConfig, resolve
from trainables.keys import PathFinder, Stage

TRAIN_S, EVALUATE_S, SPREAD = 59.0, 1.0, 0.1
SIMULATED = 100_000
"""Trials of a part that are simulated at most: more of them only go on as the last ones did."""


@dataclass(frozen=True)
class Costs:
    """Milliseconds of the driver's one thread, as `benchmarks.scale` measured them.

    `task_ms`: Tune's for one more trial, from its hand-out to its end; `record_ms`: a finished stage; `commit_ms`: the
    ledger's write and fsync of one report.
    """

    task_ms: float = 18.0
    record_ms: float = 0.3
    commit_ms: float = 1.0

    def ending(self, records: int) -> float:
        """Seconds that the end of a task takes, of which so many stages are finished."""
        return (records * self.record_ms + self.commit_ms) / 1e3


@dataclass(frozen=True)
class Outcome:
    """How a part went: virtual seconds, and which share of them the workers and the driver worked."""

    trials: int
    seconds: float
    workers_busy: float
    driver_busy: float


def simulated(trials: int, workers: int, costs: Costs) -> Outcome:
    """Run so many trials of a minute on so many workers of one driver."""
    stages, seconds = _stages(trials)
    schedule = Schedule(stages, {}, Estimator(_history(stages[:2])), workers)
    clock = driver_free = driver_busy = worked = 0.0
    idle, running = list(range(workers)), list[tuple[float, int, Task]]()
    while not schedule.finished:
        if running:
            clock, worker, task = heapq.heappop(running)
            for stage in task.stages:
                schedule.finish(_record(stage, seconds[stage.key]))
            # the driver does one thing after the other: who comes meanwhile waits
            driver_free = max(clock, driver_free) + costs.ending(len(task.stages))
            driver_busy += costs.ending(len(task.stages))
            idle.append(worker)
        while idle and (taken := schedule.take()) is not None:
            driver_free = max(clock, driver_free) + costs.task_ms / 1e3
            driver_busy += costs.task_ms / 1e3
            busy = sum(seconds[stage.key] for stage in taken.stages)
            heapq.heappush(running, (driver_free + busy, idle.pop(), taken))
            worked += busy
    return Outcome(trials, clock, worked / (clock * workers), driver_busy / clock)


def _stages(trials: int) -> tuple[list[Stage], dict[str, float]]:
    """A training and its evaluation for each trial, and the seconds that each will take."""
    config = resolve(
        TrialConfig(data=DataConfig(name="digits"), model=ModelConfig(name="resnet8"), train=TrainConfig()), "fp32"
    )
    train, evaluate = PathFinder().path(config, 0)
    random, stages, seconds = Random(0), list[Stage](), dict[str, float]()
    for number in range(trials):
        for like, parent, mean in ((train, None, TRAIN_S), (evaluate, f"t{number}", EVALUATE_S)):
            key = f"{like.kind[0]}{number}"
            stages.append(Stage(key, like.kind, parent, config, 0))
            seconds[key] = mean * random.uniform(1 - SPREAD, 1 + SPREAD)
    return stages, seconds


def _history(stages: list[Stage]) -> Iterator[StageRecord]:
    """What earlier runs have left: how long such stages take."""
    from orchestrator.estimate import images_seen

    for stage, seconds in zip(stages, (TRAIN_S, EVALUATE_S), strict=True):
        yield StageRecord(
            stage.key, stage.kind, stage.parent, 0, "complete", seconds, 0.0, seconds,
            workload=workload(stage), images=images_seen(stage),
        )  # fmt: skip


def _record(stage: Stage, seconds: float) -> StageRecord:
    return StageRecord(stage.key, stage.kind, stage.parent, 0, "complete", seconds, 0.0, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 4, 10, 20, 50])
    parser.add_argument("--task-ms", type=float, default=Costs.task_ms)
    parser.add_argument("--record-ms", type=float, default=Costs.record_ms)
    parser.add_argument("--commit-ms", type=float, default=Costs.commit_ms)
    asked = parser.parse_args()
    costs = Costs(asked.task_ms, asked.record_ms, asked.commit_ms)
    minute = TRAIN_S + EVALUATE_S
    print(f"{asked.trials:,} trials of {minute:g} s on {asked.gpus:,} GPUs; {costs}")
    print(f"without any cost: {asked.trials * minute / asked.gpus / 3600:.2f} h\n")
    print("| parts | GPUs a part | trials a part | hours | GPUs busy | driver busy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for parts in asked.parts:
        workers, trials = asked.gpus // parts, asked.trials // parts
        found = simulated(min(trials, SIMULATED), workers, costs)
        hours = found.seconds / 3600 * trials / found.trials
        shares = f"{100 * found.workers_busy:.1f} % | {100 * found.driver_busy:.1f} %"
        print(f"| {parts} | {workers:,} | {trials:,} | {hours:.2f} | {shares} |")


if __name__ == "__main__":
    main()
