"""Stage `train`: the dense network, from scratch."""

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset
from trainables.export import compact
from trainables.models.build import initialise
from trainables.models.compact import Compact
from trainables.stages.base import Outcome, empty_model, only
from trainables.stages.course import Course, Paused
from trainables.stages.select import labelled as chosen
from trainables.training.loop import Settings, Training
from trainables.training.randomness import generator


def train(
    config: TrialConfig, seed: int, data: Dataset, device: Device, parent: bytes | None, course: Course
) -> Outcome | Paused:
    """Initialise and fit the network of `config.model`; the weights of the last epoch stand.

    Args:
        config: resolved.
        seed: of the trial.
        data: all images.
        device: where it is trained.
        parent: the trajectory that says which images are labelled; None: all.
        course: from where it trains, and how far.

    Raises:
        CheckpointError: the checkpoint does not fit the network.
        DivergedError: the loss became NaN or infinite.

    """
    labelled = None if config.select is None or parent is None else chosen(parent, config.select.budget)
    model = empty_model(config, data)
    initialise(model, generator(seed, "init"))
    seen = only(data, labelled)
    training = Training(model, seen, settings(config, config.train.epochs, config.train.lr, device, seen), seed)
    paused = course.run(training)
    if paused is not None:
        return paused
    metrics = {} if labelled is None else {"labels": len(labelled)}
    return Outcome(compact.save(Compact(model), labelled), metrics, training.records)


def settings(
    config: TrialConfig, epochs: int, lr: float, device: Device, data: Dataset, *, few: bool = False
) -> Settings:
    """The loop's settings: the dense network's, with a stage's own schedule.

    With fewer labelled images than a batch holds, or where a method may see `few`, all of them are one batch.

    Raises:
        ValueError: the config is not resolved.

    """
    if config.data.augment == "auto" or config.train.precision == "auto":
        msg = "data.augment or train.precision is open; a stage takes a resolved config (trainables.config.resolve)"
        raise ValueError(msg)
    return Settings(
        epochs=epochs,
        lr=lr,
        momentum=config.train.momentum,
        weight_decay=config.train.weight_decay,
        batch_size=min(config.train.batch_size, len(data.train)) if few or config.select else config.train.batch_size,
        schedule=config.train.schedule,
        label_smoothing=config.train.label_smoothing,
        precision=config.train.precision,
        augment=config.data.augment,
        device=device,
    )
