"""The story of a trial: `select`, `train`, `compress`, `evaluate`."""

from trainables.data.load import Dataset
from trainables.keys import Stage
from trainables.models.foreign import refuse_images
from trainables.stages.base import Outcome
from trainables.stages.compress import compress
from trainables.stages.evaluate import evaluate
from trainables.stages.select import select
from trainables.stages.train import train
from trainables.training.randomness import draw_seed, generator, isolated

__all__ = ["Outcome", "run_stage"]


def run_stage(stage: Stage, data: Dataset, parent: bytes | None) -> Outcome:
    """Run one stage; `parent` is the output of the stage before it, None for the root.

    Layers that draw from the global random state, such as dropout, find one that depends on the stage's seed alone.

    Raises:
        TrialError: the stage cannot be carried out; see `trainables.errors`.

    """
    with isolated(draw_seed(generator(stage.seed, "layers")), stage.device):
        return _run(stage, data, parent)


def _run(stage: Stage, data: Dataset, parent: bytes | None) -> Outcome:
    if stage.kind == "select":
        return select(stage.config, stage.seed, data, stage.device, parent)
    if stage.kind == "train":
        if not stage.config.model.ours:
            refuse_images(stage.config.model, int(data.mean.numel()), data.classes, int(data.test.images.shape[-1]))
        return train(stage.config, stage.seed, data, stage.device, parent)
    if parent is None:
        msg = f"stage {stage.kind} needs its parent's output"
        raise ValueError(msg)
    if stage.kind == "compress":
        return compress(stage.config, stage.seed, data, stage.device, parent)
    return evaluate(stage.config, data, stage.device, parent)
