"""`plan --probe`: time a short stage of each kind of work that has no history yet."""

import time
from collections.abc import Iterable, Mapping

from orchestrator.estimate import images_seen, workload
from orchestrator.ledger import StageRecord
from orchestrator.runner.datasets import NodeDatasets
from orchestrator.storage.places import AnyPath
from trainables.config import TrialConfig
from trainables.keys import PathFinder, Stage
from trainables.stages import run_stage
from trainables.training.state import reset_state

PROBE_BATCHES = 8
PROBE_EPOCHS = 2


def probe(stages: Iterable[Stage], known: Iterable[StageRecord], data_root: AnyPath, threads: int) -> list[StageRecord]:
    """Records of shortened stages, one path for each workload among `stages` that `known` does not hold.

    Raises:
        TrialError: a shortened stage could not be carried out, for want of data above all.

    """
    reset_state(threads)
    timed = {record.workload for record in known}
    datasets, found = NodeDatasets(data_root), list[StageRecord]()
    for stage in stages:
        if stage.kind != "evaluate" or _path_timed(stage, timed):
            continue
        for record in _timed_path(stage, datasets):
            if record.workload not in timed:
                timed.add(record.workload)
                found.append(record)
    return found


def _path_timed(stage: Stage, timed: set[str]) -> bool:
    path = PathFinder(stage.device).path(stage.config, stage.seed)
    return all(workload(part) in timed for part in path if part.kind != "select")


def _timed_path(stage: Stage, datasets: NodeDatasets) -> list[StageRecord]:
    artifact: bytes | None = None
    records: list[StageRecord] = []
    for part in PathFinder(stage.device).path(_shortened(stage.config), stage.seed):
        data = datasets.of(part.config.data, part.seed)
        started_at, clock = time.time(), time.perf_counter()
        artifact = run_stage(part, data, artifact).artifact
        busy_s = time.perf_counter() - clock
        records.append(
            StageRecord(
                key=part.key, kind=part.kind, parent=part.parent, seed=part.seed, status="complete", busy_s=busy_s,
                started_at=started_at, finished_at=time.time(), workload=workload(part), images=images_seen(part),
            )
        )  # fmt: skip
    return records


def _shortened(config: TrialConfig) -> TrialConfig:
    """A few batches and epochs of the same work, on any labels: it stays the same workload."""
    images = min(
        config.data.train_size or 0, round(PROBE_BATCHES * config.train.batch_size / (1 - config.data.val_share))
    )
    sections: Mapping[str, object] = {
        "select": None,
        "data": config.data.model_copy(update={"train_size": images}),
        "train": config.train.model_copy(update={"epochs": PROBE_EPOCHS}),
        "compress": config.compress and config.compress.model_copy(update={"epochs": PROBE_EPOCHS}),
    }
    return config.model_copy(update=sections)
