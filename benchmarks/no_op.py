"""Stages that do nothing: what stands in for training and measuring where the orchestration alone is looked at.

Numbers are those that real stages report, in kind and number, and no output is written: the files of real stages'
outputs, one a stage, are networks that a study asked for.
"""

from collections.abc import Mapping

from trainables.keys import Stage, StageKind
from trainables.stages.base import Outcome

_EPOCH = {"epoch": 1.0, "loss": 0.25, "lr": 5e-06, "val_accuracy": 0.9375, "images_per_s": 22496.620849366373}
_METRICS: Mapping[StageKind, Mapping[str, float | int | None]] = {
    "select": {"labels": 100, "select_s": 0.1, "select_train_s": 0.05, "select_score_s": 0.03, "select_query_s": 0.02},
    "train": {},
    "compress": {"pfr_achieved": 0.3888888888888889},
    "evaluate": {
        "accuracy": 0.9, "accuracy_low": 0.8646631029127307, "accuracy_high": 0.9268904515763144, "test_images": 360,
        "val_accuracy": 0.9166666666666666, "compression": 17.9974572644193248, "payload_compression": 31.0,
        "hidden_compression": 32.0, "layer_compression_max": 32.0, "bits_per_weight": 1.6, "weight_bytes": 77856,
        "packed_bytes": 79442, "dense_bytes": 79240, "params": 19810, "macs": 193344, "bops": 197984256,
        "mac_cost": 193344.0,
    },
}  # fmt: skip


def no_op(stage: Stage) -> Outcome:
    """What a stage gives that does nothing: no output, and numbers as many as those of its kind."""
    history = () if stage.kind in ("select", "evaluate") else (_EPOCH,)
    return Outcome(artifact=b"", metrics=_METRICS[stage.kind], history=history)
