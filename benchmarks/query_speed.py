"""Seconds and memory of a query over a large pool, one thread, against the plain way where there is one.

    uv run python benchmarks/query_speed.py [--pool 50000] [--labelled 1000] [--rounds 3] [--skip-plain]

The pool is drawn: ten clusters of 64 features behind a ReLU, a linear layer of 10 classes on them. The network's own
work is left out; it is a look-up here. The two sides take turns, after a turn of each to warm up; printed are medians
of seconds passed and of the CPU's (a busy machine shows in their difference), the ratio of the latter, the memory at
the peak beyond what was held before (Linux with glibc; the gathered logits and features count, and for bald what the
look-up holds), and how many of the images both sides choose.

Plain k-center is the loop of one matrix-vector product for each pick. Plain BADGE forms the gradient embedding (C, 640)
and draws with the same numbers. Both sides round, so that an all but equal distance may be broken otherwise.
"""

import argparse
import ctypes
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from trainables.active.pool import Pool
from trainables.active.strategies.registry import STRATEGIES, strategy_of
from trainables.active.strategies.seeding import drawn
from trainables.select_config import SelectConfig
from trainables.training.randomness import generator

FEATURES, CLASSES = 64, 10
COUNTS = {"k_center": 5000}
COUNT = 1000

Query = Callable[[Pool, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Drawn:
    """A network whose answers were drawn before."""

    outputs: Tensor
    inputs: Tensor
    weights: Tensor
    changes: Tensor

    def logits(self, indices: Tensor) -> Tensor:
        return self.outputs[indices]

    def features(self, indices: Tensor) -> Tensor:
        return self.inputs[indices]

    def dropout_logits(self, indices: Tensor, passes: int, source: torch.Generator) -> Tensor:
        rows = self.inputs[indices]
        return (
            torch.stack([rows * (torch.rand(rows.shape, generator=source) > 0.3) for _ in range(passes)]) @ self.weights
        )

    def flips(self, indices: Tensor) -> Tensor:
        return self.changes[indices]


@dataclass(frozen=True)
class Cost:
    """Of one query."""

    seconds: float
    cpu_s: float
    mebibytes: float
    images: list[int]


def random_pool(candidates: int, labelled: int) -> Pool:
    source, images = generator(0, "calibration"), candidates + labelled
    centres = 1.5 * torch.randn(CLASSES, FEATURES, generator=source)
    spread = torch.randn(images, FEATURES, generator=source) * torch.rand(images, 1, generator=source)
    features = (centres[torch.randint(CLASSES, (images,), generator=source)] + spread).relu()
    weights = 0.15 * torch.randn(FEATURES, CLASSES, generator=source)
    network = Drawn(features @ weights, features, weights, torch.randint(5, (images,), generator=source))
    known = torch.arange(labelled)
    return Pool(torch.arange(labelled, images), known, known % CLASSES, CLASSES, network)


def plain_k_center(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """One pick at a time over the whole pool; labelled images one by one too."""
    del source
    rows, norms = pool.network.features(pool.candidates), pool.network.features(pool.candidates).square().sum(1)
    nearest = torch.full((len(rows),), torch.inf)
    for centre in pool.network.features(pool.labelled):
        nearest = torch.minimum(nearest, norms - 2 * (rows @ centre) + centre.square().sum())
    picks: list[int] = []
    for _ in range(count):
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.addmv(norms, rows, rows[picks[-1]], alpha=-2).add_(norms[picks[-1]]))
        nearest[picks[-1]] = -1
    return pool.candidates[picks]


def plain_badge(pool: Pool, count: int, source: torch.Generator) -> Tensor:
    """k-means++ seeding on the explicit gradient embedding."""
    towards = pool.network.logits(pool.candidates).softmax(1)
    towards[torch.arange(len(towards)), towards.argmax(1)] -= 1
    embedding = (towards.unsqueeze(2) * pool.network.features(pool.candidates).unsqueeze(1)).flatten(1)
    norms = embedding.square().sum(1)
    picks, nearest = [int(norms.argmax())], torch.full_like(norms, torch.inf)
    for draw in torch.rand(count - 1, dtype=torch.float64, generator=source).tolist():
        gaps = torch.addmv(norms, embedding, embedding[picks[-1]], alpha=-2).add_(norms[picks[-1]])
        nearest = torch.minimum(nearest, gaps.clamp_(min=0))
        nearest[picks[-1]] = 0
        picks.append(drawn(nearest, draw) or 0)
    return pool.candidates[picks]


PLAIN: dict[str, Query] = {"k_center": plain_k_center, "badge": plain_badge}


def resident(key: str) -> float:
    """MiB of this process, by a key of /proc/self/status; nan where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), float("nan"))


def cost(query: Query, pool: Pool, count: int) -> Cost:
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        peak.write_text("5")
    before, start, busy = resident("VmRSS"), time.perf_counter(), time.process_time()
    images = query(pool, count, generator(0, "query"))
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - busy
    return Cost(seconds, cpu_s, resident("VmHWM") - before, images.tolist())


def compared(pool: Pool, count: int, sides: list[Query], rounds: int) -> list[Cost]:
    """The medians of each side, which take turns; the first turn is not counted."""
    turns = [[cost(side, pool, count) for side in sides] for _ in range(rounds + 1)][1:]
    return [
        Cost(
            median(one.seconds for one in side),
            median(one.cpu_s for one in side),
            median(one.mebibytes for one in side),
            side[0].images,
        )
        for side in zip(*turns, strict=True)
    ]


def row(name: str, count: int, costs: list[Cost]) -> str:
    ours = costs[0]
    text = f"{name:16} {count:6} {ours.seconds:9.3f} {ours.cpu_s:7.3f} {ours.mebibytes:8.0f}"
    if len(costs) > 1:
        plain = costs[1]
        both = len(set(ours.images) & set(plain.images))
        text += (
            f" {plain.seconds:9.3f} {plain.cpu_s:7.3f} {plain.mebibytes:8.0f} {plain.cpu_s / ours.cpu_s:6.1f}x {both:8}"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pool", type=int, default=50_000)
    parser.add_argument("--labelled", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-plain", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pool = random_pool(arguments.pool, arguments.labelled)
    print(
        f"{platform.machine()}, torch {torch.__version__}, 1 thread, {arguments.pool} x {FEATURES}, {CLASSES} classes"
    )
    print("strategy         images   seconds   cpu s      MiB   plain s   cpu s      MiB  ratio the same")
    for name in STRATEGIES:
        count = min(COUNTS.get(name, COUNT), arguments.pool)
        sides: list[Query] = [strategy_of(SelectConfig(strategy=name, budget=1))]
        sides += [] if arguments.skip_plain or name not in PLAIN else [PLAIN[name]]
        print(row(name, count, compared(pool, count, sides, arguments.rounds)))


if __name__ == "__main__":
    main()
