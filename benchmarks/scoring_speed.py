"""Images per second of reading a pool against a plain fp32 loop (`trainables.training.loop.predict`), in one process.

    uv run python benchmarks/scoring_speed.py [--rounds 5] [--images 4000]

Random images, one thread, batches of 400 in the plain loop. The two take turns, after a small turn each to warm up; a
turn of reading rewrites the network anew, as a round of active learning does. Printed are the medians, the ratio of
the two, its range over the turns, and what rewriting takes on its own. BN has statistics other than 0 and 1. Seconds
are those of the processor, which on one thread are those on the wall of a machine that does nothing else.
"""

import argparse
import copy
import platform
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from trainables.active.fused import fuse
from trainables.active.scoring import read_pool, shrink
from trainables.config import Precision
from trainables.data.load import Dataset, Split, resize
from trainables.model_config import ModelConfig
from trainables.models.build import build, initialise, last_layer
from trainables.training.loop import predict
from trainables.training.randomness import generator

NETWORKS = (("resnet8", 8), ("resnet8", 16), ("resnet14", 16))
IMAGES = ((1, 28), (3, 32))
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
CLASSES = 10


def random_images(count: int, channels: int, size: int) -> Dataset:
    source = generator(0, "calibration")
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=source)
    split = Split(images, torch.randint(CLASSES, (count,), generator=source))
    half = torch.full((channels,), 0.5)
    return Dataset(split, split.subset(torch.arange(8)), split.subset(torch.arange(8)), CLASSES, half, half)


def network(name: str, width: int, channels: int) -> nn.Module:
    model = build(ModelConfig.model_validate({"name": name, "width": width, "stem": "cifar"}), channels, CLASSES)
    source = generator(0, "init")
    initialise(model, source)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.3, generator=source)
            module.get_buffer("running_var").uniform_(0.5, 2, generator=source)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # as training leaves it


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    return [(seconds(first), seconds(second)) for _ in range(rounds)]


def row(model: nn.Module, data: Dataset, precision: Precision, rounds: int) -> str:
    images = data.train.images

    def read(count: int = len(images)) -> None:
        read_pool(model, images[:count], data, precision=precision, device="cpu", features=True)

    twin = copy.deepcopy(model).eval()
    rewriting = median(seconds(lambda: fuse(twin, precision, last_layer(twin), features=True)) for _ in range(rounds))
    read(800)
    predict(model, data.train.subset(torch.arange(800)), data)
    pairs = turns(lambda: predict(model, data.train, data), read, rounds)
    plain, ours = (median(pair[side] for pair in pairs) for side in (0, 1))
    ratios = [before / after for before, after in pairs]
    speeds = f"{len(images) / plain:9.0f} {len(images) / ours:9.0f}"
    return f"{speeds} {plain / ours:6.2f}   {min(ratios):5.2f} to {max(ratios):5.2f} {rewriting * 1e3:10.1f}"


def shrinking(count: int, rounds: int) -> str:
    split = random_images(count, 1, 28).train
    pairs = turns(lambda: resize(split, 14), lambda: shrink(split.images, 14), rounds + 1)[1:]
    slow, fast = (median(pair[side] for pair in pairs) for side in (0, 1))
    return f"28 -> 14 pixels: resize {count / slow:.0f} images/s, shrink {count / fast:.0f}, ratio {slow / fast:.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.images} images, one thread; torch {torch.__version__}, {platform.machine()}")
    print("network      pixels       precision    plain      ours  ratio   over the turns  rewriting ms")
    for name, width in NETWORKS:
        for channels, size in IMAGES:
            data, model = random_images(options.images, channels, size), network(name, width, channels)
            for precision in PRECISIONS:
                named = f"{name} w{width}".ljust(12) + f" {channels}x{size}x{size}".ljust(13) + f" {precision:9}"
                print(named, row(model, data, precision, options.rounds), flush=True)
    print(shrinking(5 * options.images, options.rounds))


if __name__ == "__main__":
    main()
