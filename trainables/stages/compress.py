"""Stage `compress`: a method trained in from the dense parent, and what it removed cut out."""

from dataclasses import replace

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset, normalise
from trainables.data.samples import calibration_images
from trainables.export import compact
from trainables.methods.registry import create
from trainables.stages.base import Outcome, only, restore
from trainables.stages.course import Course, Paused
from trainables.stages.train import settings
from trainables.training.loop import Training


def compress(
    config: TrialConfig, seed: int, data: Dataset, device: Device, parent: bytes, course: Course
) -> Outcome | Paused:
    """Train `config.compress` into the parent's network and finalize it to its physical size.

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
    method.transform(model, normalise(data.train.images[:1], data))
    method.calibrate(model, calibration_images(data, seed))
    schedule = settings(config, config.compress.epochs, config.compress.lr, device, data)
    training = Training(model, data, schedule, seed, method)
    paused = course.run(training, method.protected)
    if paused is not None:
        return paused
    finished = method.finalize(model)
    finished = replace(finished, edits=dense.edits + finished.edits)
    removed = sum(whole - kept for kept, whole in finished.kept.values())
    whole = sum(whole for _, whole in finished.kept.values())
    pfr_achieved = removed / whole if whole else 0.0
    return Outcome(compact.save(finished), {"pfr_achieved": pfr_achieved}, training.records)
