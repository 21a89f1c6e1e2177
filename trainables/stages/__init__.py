"""The story of a trial: `select`, `train`, `compress`, `evaluate`."""

from dataclasses import replace
from typing import overload

from trainables.data.load import Dataset
from trainables.keys import Stage
from trainables.models.foreign import refuse_images
from trainables.stages.base import Outcome
from trainables.stages.compress import compress
from trainables.stages.course import AfterEpoch, Course, Paused, Progress, Watch
from trainables.stages.evaluate import evaluate
from trainables.stages.select import select
from trainables.stages.train import train
from trainables.training.randomness import draw_seed, generator, isolated

__all__ = ["AfterEpoch", "Outcome", "Paused", "Progress", "Watch", "run_stage"]


@overload
def run_stage(
    stage: Stage,
    data: Dataset,
    parent: bytes | None,
    *,
    resume: bytes | None = None,
    after_epoch: Watch | None = None,
) -> Outcome: ...


@overload
def run_stage(
    stage: Stage, data: Dataset, parent: bytes | None, *, resume: bytes | None = None, after_epoch: AfterEpoch
) -> Outcome | Paused: ...


def run_stage(
    stage: Stage,
    data: Dataset,
    parent: bytes | None,
    *,
    resume: bytes | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Outcome | Paused:
    """Run one stage; `parent` is the output of the stage before it, None for the root.

    Layers that draw from the global random state, such as dropout, find one that depends on the stage's seed alone.

    A stage that trains may stop at the end of an epoch and go on later, in another process: its output, metrics and
    history are, times aside, those of a stage that was never stopped, bit for bit. What a network or a method keeps
    from epoch to epoch must lie in its parameters and buffers.

    Args:
        stage: what to compute.
        data: all images.
        parent: output of the stage before it.
        resume: a checkpoint of this stage; None: it begins anew.
        after_epoch: told of each epoch of a `train` or `compress` stage, and asked whether to stop there.

    Returns:
        The stage's outcome, or where `after_epoch` stopped it what it goes on from.

    Raises:
        CheckpointError: `resume` is damaged, or of another stage, parent, version or machine; begin the stage anew.
        TrialError: the stage cannot be carried out; see `trainables.errors`.

    """
    course = Course(stage, parent, resume, after_epoch)
    with isolated(draw_seed(generator(stage.seed, "layers")), stage.device):
        found = _run(stage, data, parent, course)
    return replace(found, before_s=course.before_s) if isinstance(found, Outcome) else found


def _run(stage: Stage, data: Dataset, parent: bytes | None, course: Course) -> Outcome | Paused:
    if stage.kind == "select":
        return select(stage.config, stage.seed, data, stage.device, parent)
    if stage.kind == "train":
        if not stage.config.model.ours:
            refuse_images(stage.config.model, int(data.mean.numel()), data.classes, int(data.test.images.shape[-1]))
        return train(stage.config, stage.seed, data, stage.device, parent, course)
    if parent is None:
        msg = f"stage {stage.kind} needs its parent's output"
        raise ValueError(msg)
    if stage.kind == "compress":
        return compress(stage.config, stage.seed, data, stage.device, parent, course)
    return evaluate(stage.config, data, stage.device, parent)
