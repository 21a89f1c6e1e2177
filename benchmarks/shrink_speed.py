"""What shrinking a network while it trains saves in training: wall time of the compress stage, one thread.

    uv run python benchmarks/shrink_speed.py [--network vgg_small --width 32 --epochs 10 --rounds 3]
        [--data-root DATA --data fashion_mnist --train-size 4000]

`low_rank` splits layers and `group_sparsity` cuts channels early, or at the end of the same schedule; runs alternate,
medians are compared, beside plain training, `finetune`. Reference: up to 70 % faster by pruning during
training, as the slides to "Compression-aware Training of Deep Networks", NIPS 2017, say of networks far larger.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainables.config import TrialConfig, resolve
from trainables.data.load import load
from trainables.keys import PathFinder
from trainables.stages import Outcome, run_stage

METHODS: Mapping[str, Mapping[str, Any]] = {
    "finetune": {"method": "finetune"},
    "low_rank, split at the end": {"method": "low_rank", "energy": 0.7, "split_at": 1},
    "low_rank, split after 25 %": {"method": "low_rank", "energy": 0.7, "split_at": 0.25},
    "low_rank, energy 0.5, split after 25 %": {"method": "low_rank", "energy": 0.5, "split_at": 0.25},
    "group_sparsity, cut at the end": {"method": "group_sparsity", "penalty": 0.02, "scope": "all", "cut": "end"},
    "group_sparsity, cut as it goes": {"method": "group_sparsity", "penalty": 0.02, "scope": "all", "cut": "epoch"},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", type=Path, default=Path())
    parser.add_argument("--train-size", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {} if options.train_size is None else {"train_size": options.train_size}

    def trial(method: Mapping[str, Any]) -> TrialConfig:
        tree = {
            "data": {"name": options.data, **sizes}, "train": {"epochs": options.epochs},
            "model": {"name": options.network, "width": options.width},
            "compress": {"epochs": options.epochs, **method},
        }  # fmt: skip
        return resolve(TrialConfig.model_validate(tree), "fp32")

    data = load(trial(METHODS["finetune"]).data, 0, options.data_root)
    paths = {name: PathFinder().path(trial(method), 0) for name, method in METHODS.items()}
    parent = run_stage(paths["finetune"][0], data, None).artifact
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    ended: dict[str, Outcome] = {}
    for _ in range(options.rounds):
        for name, path in paths.items():
            start = time.perf_counter()
            compressed = run_stage(path[1], data, parent)
            seconds[name].append(time.perf_counter() - start)
            ended[name] = run_stage(path[2], data, compressed.artifact)
    plain = statistics.median(seconds["finetune"])
    sys.stdout.write("| method | training, s | of plain training | MACs, of dense | test accuracy |\n")
    whole = float(str(ended["finetune"].metrics["macs"]))
    for name, times in seconds.items():
        found, median = ended[name].metrics, statistics.median(times)
        told = f"{median:.2f} | {median / plain:.2f} | {float(str(found['macs'])) / whole:.2f}"
        sys.stdout.write(f"| {name} | {told} | {100 * float(str(found['accuracy'])):.2f} % |\n")


if __name__ == "__main__":
    main()
