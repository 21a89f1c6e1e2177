"""The story of a trial: `train`, `compress`, `evaluate`."""

from trainables.data.load import Dataset
from trainables.keys import Stage
from trainables.stages.base import Outcome
from trainables.stages.compress import compress
from trainables.stages.evaluate import evaluate
from trainables.stages.train import train

__all__ = ["Outcome", "run_stage"]


def run_stage(stage: Stage, data: Dataset, parent: bytes | None) -> Outcome:
    """Run one stage; `parent` is the output of the stage before it, None for the root.

    Raises:
        TrialError: the stage cannot be carried out; see `trainables.errors`.

    """
    if stage.kind == "train":
        return train(stage.config, stage.seed, data, stage.device)
    if parent is None:
        msg = f"stage {stage.kind} needs its parent's output"
        raise ValueError(msg)
    if stage.kind == "compress":
        return compress(stage.config, stage.seed, data, stage.device, parent)
    return evaluate(stage.config, data, stage.device, parent)
