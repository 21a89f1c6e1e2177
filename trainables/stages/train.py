"""Stage `train`: the dense network, from scratch."""

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset
from trainables.export import compact
from trainables.models.build import initialise
from trainables.models.compact import Compact
from trainables.stages.base import Outcome, empty_model
from trainables.training.loop import Settings, fit
from trainables.training.randomness import generator


def train(config: TrialConfig, seed: int, data: Dataset, device: Device) -> Outcome:
    """Initialise and fit the network of `config.model`; the weights of the last epoch stand.

    Raises:
        DivergedError: the loss became NaN or infinite.

    """
    model = empty_model(config, data)
    initialise(model, generator(seed, "init"))
    history = fit(model, data, settings(config, config.train.epochs, config.train.lr, device), seed)
    return Outcome(compact.save(Compact(model)), {}, history)


def settings(config: TrialConfig, epochs: int, lr: float, device: Device) -> Settings:
    """The loop's settings: the dense network's, with a stage's own schedule.

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
        batch_size=config.train.batch_size,
        schedule=config.train.schedule,
        label_smoothing=config.train.label_smoothing,
        precision=config.train.precision,
        augment=config.data.augment,
        device=device,
    )
