"""Stage `compress`: a method trained in from the dense parent, and what it removed cut out."""

from dataclasses import replace

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset, normalise
from trainables.data.samples import calibration_images
from trainables.export import compact
from trainables.export.packed import pack
from trainables.method_config import PipelineStep
from trainables.methods.registry import create
from trainables.models.compact import Compact
from trainables.stages.base import Outcome, header, only, restore
from trainables.stages.course import Course, Paused
from trainables.stages.train import settings
from trainables.training.loop import Training, accuracy


def compress(
    config: TrialConfig, seed: int, data: Dataset, device: Device, parent: bytes, course: Course
) -> Outcome | Paused:
    """Train `config.compress` into the parent's network and finalize it to its physical size.

    A step of a pipeline also says how large the packed file would be, and how well it predicts, if it were the last.

    `course` says from where it trains, and how far.

    Raises:
        CheckpointError: the checkpoint does not fit the network.
        DivergedError: the loss became NaN or infinite.
        InfeasibleError: the network cannot be compressed as asked.

    """
    if config.compress is None:
        msg = "a compress stage needs a compress section"
        raise ValueError(msg)
    dense = restore(config, data, parent)
    model = dense.model
    data = only(data, compact.labelled(parent))
    method = create(config.compress, seed)
    chosen, apart = (find(len(data.train)) for find in (method.chosen_images, method.apart_images))
    judging = None if apart is None else data.train.subset(apart)
    data = only(data, chosen)
    step = config.compress if isinstance(config.compress, PipelineStep) else None
    method.transform(model, normalise(data.train.images[:1], data))
    method.calibrate(model, calibration_images(data, seed, method.calibration_images))
    if judging is not None:
        method.judge(model, normalise(judging.images, data), judging.labels)
    epochs = config.compress.trained_epochs()
    schedule = settings(config, epochs, config.compress.lr, device, data, few=chosen is not None)
    training = Training(model, data, schedule, seed, method)
    # what an early step of a pipeline shows says little of its end
    paused = course.run(training, method.protected if step is None else lambda _, __: True)
    if paused is not None:
        return paused
    finished = method.finalize(model)
    finished = replace(finished, edits=dense.edits + finished.edits)
    metrics = _pruned(finished)
    if step is not None:
        metrics = ({} if step.number > 1 and not finished.kept else metrics) | {
            f"step_{step.number}_bytes": len(pack(finished, header(config, data))),
            f"step_{step.number}_val_accuracy": training.records[-1]["val_accuracy"]
            if training.records
            else accuracy(finished.model, data.val, data, device=device),
        }
    return Outcome(compact.save(finished), metrics, training.records)


def _pruned(finished: Compact) -> dict[str, float]:
    removed = sum(whole - kept for kept, whole in finished.kept.values())
    whole = sum(whole for _, whole in finished.kept.values())
    return {"pfr_achieved": removed / whole if whole else 0.0}
