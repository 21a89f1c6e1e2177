"""Whether bf16 autocast pays on this machine for one network and image size, measured in a few seconds."""

from statistics import median

import torch
from torch import nn

from trainables.config import SMALLEST_PROBED_IMAGE, Precision, TrialConfig
from trainables.data.load import Dataset, Split
from trainables.models.build import build, initialise
from trainables.training.loop import Settings, fit
from trainables.training.randomness import generator

GAIN_NEEDED = 1.15  # below this the gain is within a machine's noise and not worth 16 bits of mantissa
STEPS = 2
ROUNDS = 3
STEP_S = 0.2  # a large network is probed on a smaller batch, so that an fp32 step takes about this long


def measure(config: TrialConfig) -> float:
    """Training images per second with bf16 over those with fp32, on random images, one thread, on the CPU.

    Both precisions take `ROUNDS` turns of `STEPS` steps after a turn to warm up; the medians are compared. It takes
    about 3 s. Below `SMALLEST_PROBED_IMAGE` pixels nothing is measured and the answer is 1.

    Args:
        config: resolved with fp32.

    Raises:
        ValueError: the config is not resolved.

    """
    if config.data.image_size is None:
        msg = "data.image_size is open; the probe takes a resolved config (trainables.config.resolve)"
        raise ValueError(msg)
    if config.data.image_size < SMALLEST_PROBED_IMAGE:
        return 1.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _ratio(config, config.data.image_size)
    finally:
        torch.set_num_threads(threads)


def _ratio(config: TrialConfig, size: int) -> float:
    facts = config.data.facts()
    model = build(config.model, facts.channels, facts.classes, allow_code=True)
    initialise(model, generator(0, "init"))
    few = min(8, config.train.batch_size)
    _speed(model, config, size, few, "fp32")
    batch = min(config.train.batch_size, max(few, int(STEP_S * _speed(model, config, size, few, "fp32"))))
    speeds: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(ROUNDS + 1):
        for precision, found in speeds.items():
            found.append(_speed(model, config, size, batch, precision))
    return median(speeds["bf16"][1:]) / median(speeds["fp32"][1:])


def _speed(model: nn.Module, config: TrialConfig, size: int, batch: int, precision: Precision) -> float:
    """Images per second over `STEPS` steps."""
    settings = _settings(config, batch, precision)
    return fit(model, _random_images(config, size, STEPS * batch), settings, seed=0)[0]["images_per_s"]


def _settings(config: TrialConfig, batch: int, precision: Precision) -> Settings:
    train = config.train
    return Settings(
        epochs=1,
        lr=1e-6,  # the weights hardly move, so that no turn can diverge
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        batch_size=batch,
        schedule=train.schedule,
        label_smoothing=train.label_smoothing,
        precision=precision,
        augment="none",
        device="cpu",
    )


def _random_images(config: TrialConfig, size: int, count: int) -> Dataset:
    facts = config.data.facts()
    source = generator(0, "calibration")
    images = torch.randint(256, (count, facts.channels, size, size), dtype=torch.uint8, generator=source)
    train = Split(images, torch.randint(facts.classes, (count,), generator=source))
    one = train.subset(torch.tensor([0]))
    half = torch.full((facts.channels,), 0.5)
    return Dataset(train, one, one, facts.classes, half, half)
