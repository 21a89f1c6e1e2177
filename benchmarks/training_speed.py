"""Images per second of the training loop against the plain one (fp32, NCHW, torch.optim.SGD), in one process.

    uv run python benchmarks/training_speed.py [--model resnet20] [--rounds 5] [--steps 4]

Random 32x32 RGB images, batch 128, one thread, crop and flip in both loops. The loops take turns, after a turn each to
warm up; printed are the medians, their ranges and the ratio. `--precision fp32` shows what channels_last alone gains.
"""

import argparse
import platform
import time
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import Precision, TrialConfig, resolve
from trainables.data.load import Dataset, Split
from trainables.models.build import build, initialise
from trainables.training.augment import crop_flip
from trainables.training.loop import Settings, fit
from trainables.training.randomness import generator

BATCH = 128


def random_images(count: int) -> Dataset:
    """Images and labels of CIFAR-10's shape."""
    source = generator(0, "calibration")
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=source)
    train = Split(images, torch.randint(10, (count,), generator=source))
    half = torch.full((3,), 0.5)
    return Dataset(train, train.subset(torch.arange(8)), train.subset(torch.arange(8)), 10, half, half)


def network(name: str) -> nn.Module:
    """The network with the same first weights for both loops."""
    config = TrialConfig.model_validate({"data": {"name": "cifar10"}, "model": {"name": name}})
    model = build(resolve(config, "fp32").model, 3, 10)
    initialise(model, generator(0, "init"))
    return model


def plain(model: nn.Module, optimizer: torch.optim.SGD, data: Dataset) -> float:
    """Images per second of an epoch of the loop that everybody writes first."""
    start = time.perf_counter()
    model.train()
    order = torch.randperm(len(data.train), generator=generator(0, "batches"))
    noise = generator(0, "augmentation")
    for indices in order.split(BATCH):
        images = crop_flip(data.train.images[indices], noise).float().div(255)
        loss = F.cross_entropy(model(_standard(images, data)), data.train.labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(data.train) / (time.perf_counter() - start)


def ours(model: nn.Module, data: Dataset, precision: Precision) -> float:
    """Images per second of an epoch of `fit`."""
    settings = Settings(
        epochs=1,
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        batch_size=BATCH,
        schedule="cosine",
        label_smoothing=0.0,
        precision=precision,
        augment="crop_flip",
        device="cpu",
    )
    return fit(model, data, settings, seed=0)[0]["images_per_s"]


def _standard(images: Tensor, data: Dataset) -> Tensor:
    return (images - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    options = parser.parse_args()
    precision = cast("Precision", options.precision)
    torch.set_num_threads(1)
    data = random_images(options.steps * BATCH)
    first, second = network(options.model), network(options.model)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    pairs = [(plain(first, optimizer, data), ours(second, data, precision)) for _ in range(options.rounds + 1)]
    before, after = ([pair[side] for pair in pairs[1:]] for side in (0, 1))
    print(f"{options.model}, 32x32, batch {BATCH}, one thread; torch {torch.__version__}, {platform.machine()}")
    print(f"plain fp32 NCHW loop    {median(before):7.1f} images/s  ({min(before):.1f} to {max(before):.1f})")
    print(f"ours, {precision}              {median(after):7.1f} images/s  ({min(after):.1f} to {max(after):.1f})")
    print(f"ratio of the medians    {median(after) / median(before):7.2f}")


if __name__ == "__main__":
    main()
