"""What choosing images costs: the target network from scratch each round against CLActive's three accelerations.

    uv run python benchmarks/selection_speed.py --data-root DATA [--seeds 3] [--ablation] [--pool-cap 4000]
    uv run python benchmarks/selection_speed.py --data-root DATA --data cifar10 --pool 5000

Fashion-MNIST, a pool of 20,000 images to 10,000 labels in ten rounds by least confidence, one thread, bf16, batches of
128, random crops and flips. `standard` trains ResNet-14 of width 16 for 25 epochs on all labels each round; `fast` has
a proxy (ResNet-8, width 8, on images of half the side), a memory as large as the query, and five epochs of the fast
schedule. Then the target is trained for 25 epochs on what each chose. Both run in this process, round by round in turn.
Half of any other `--pool` is labelled, in ten rounds too.

Two clocks: the wall's, which the rounds' ledger has and other work on the machine lengthens, and the processor's, which
is of the whole stage: the validation of a tenth of the pool and the trajectory's file are within, to the disadvantage
of `fast`. Small images are a lever beyond CLActive's three. Finished stages are kept in --out by the sources of
`trainables`, so that a run that was cut off goes on.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch

import trainables
from trainables.config import DataConfig, ModelConfig, SelectConfig, TrainConfig, TrialConfig, resolve
from trainables.keys import PathFinder, Stage
from trainables.stages import run_stage
from trainables.stages.datasets import Datasets
from trainables.training.state import machine, reset_state

PARTS = ("train_s", "score_s", "query_s")
HALF_SIDE = {"fashion_mnist": 14, "cifar10": 16}
FAST: Mapping[str, Mapping[str, Any]] = {
    "proxy": {"proxy": "resnet8", "proxy_width": 8},
    "memory": {"replay_ratio": 1.0},
    "convergence": {"epochs": 5, "schedule": "fast"},
}


@dataclass(frozen=True, slots=True)
class Pool:
    """A data set and how many of its images are candidates."""

    data: Literal["fashion_mnist", "cifar10"]
    size: int

    def config(self, *switches: str, strategy: str = "least_confidence", pool_cap: int | None = None) -> TrialConfig:
        """A resolved trial with some of the accelerations on."""
        leaves: dict[str, Any] = {name: value for switch in switches for name, value in FAST[switch].items()}
        if "proxy" in switches:
            leaves["proxy_image_size"] = HALF_SIDE[self.data]
        select = SelectConfig(
            strategy=strategy,  # pyright: ignore[reportArgumentType]
            budget=self.size // 2,
            initial=self.size // 20,
            query_sizes=(self.size // 20,),
            pool_cap=pool_cap,
            **leaves,
        )
        trial = TrialConfig(
            data=DataConfig(name=self.data, train_size=self.size + self.size // 10, val_share=0.0909),
            select=select,
            model=ModelConfig(name="resnet14", width=16),
            train=TrainConfig(epochs=25),
        )
        return resolve(trial, "bf16")


@dataclass(frozen=True, slots=True)
class Ran:
    """A stage that is done: its output, its numbers, and the processor's seconds."""

    artifact: bytes
    metrics: Mapping[str, Any]
    cpu_s: float


class Kept:
    """Runs stages, and reads those that an earlier run of the same code left."""

    def __init__(self, folder: Path, data_root: Path) -> None:
        self._folder = folder
        self._datasets = Datasets(data_root)
        self._sources = sources()
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, stage: Stage, parent: bytes | None) -> Ran:
        """The stage's outcome; `parent` is the output of the stage before it."""
        name = hashlib.sha256(f"{self._sources} {stage.key}".encode()).hexdigest()[:24]
        notes, artifact = self._folder / f"{name}.json", self._folder / f"{name}.bin"
        if notes.exists():
            noted = json.loads(notes.read_text())
            return Ran(artifact.read_bytes(), noted["metrics"], noted["cpu_s"])
        data = self._datasets.of(stage.config.data, stage.seed)
        start = time.process_time()
        outcome = run_stage(stage, data, parent)
        cpu_s = time.process_time() - start
        artifact.write_bytes(outcome.artifact)
        notes.write_text(json.dumps({"metrics": dict(outcome.metrics), "cpu_s": cpu_s}))
        return Ran(outcome.artifact, outcome.metrics, cpu_s)


def sources() -> str:
    """A digest of the code that is timed, and of what it runs on."""
    digest = hashlib.sha256(f"{torch.__version__} {machine()}".encode())
    for path in sorted(Path(trainables.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(slots=True)
class Way:
    """One way of choosing under one seed: its rounds, then the target."""

    name: str
    stages: tuple[Stage, ...]
    cpu_s: float = 0.0
    accuracy: float | None = None
    val_accuracy: float | None = None
    parts: Counter[str] = field(default_factory=Counter[str])

    def steps(self, kept: Kept, *, target: bool) -> Iterator[None]:
        """Run stage after stage, giving way between them."""
        parent: bytes | None = None
        for stage in self.stages:
            if stage.kind != "select" and not target:
                return
            ran = kept.run(stage, parent)
            parent = ran.artifact
            if stage.kind == "select":
                self.cpu_s += ran.cpu_s
                self.parts.update({name: ran.metrics[f"select_{name}"] for name in PARTS})
            self.accuracy = ran.metrics.get("accuracy", self.accuracy)
            self.val_accuracy = ran.metrics.get("val_accuracy", self.val_accuracy)
            yield


def ways(options: argparse.Namespace) -> dict[str, TrialConfig]:
    """What is compared, by name."""
    pool = Pool(options.data, options.pool)
    standard = pool.config()
    found = {
        "standard": standard,
        "fast": pool.config(*FAST),
        "random": pool.config(strategy="random"),
        "all labels": standard.model_copy(update={"select": None}),
    }
    if options.pool_cap:
        found[f"fast, pool_cap {options.pool_cap}"] = pool.config(*FAST, pool_cap=options.pool_cap)
    if options.ablation:
        found |= {f"{switch} alone": pool.config(switch) for switch in FAST}
    return found


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description="Selection time of fast and of standard active learning.")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--data", choices=tuple(HALF_SIDE), default="fashion_mnist")
    parser.add_argument("--pool", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/.selection_speed"))
    parser.add_argument("--pool-cap", type=int)
    parser.add_argument("--ablation", action="store_true", help="each acceleration alone too; the first seed")
    options = parser.parse_args()
    reset_state(1)
    torch.manual_seed(0)
    kept = Kept(options.out, options.data_root)
    finder = PathFinder()
    done: dict[str, list[Way]] = {}
    for seed in range(options.seeds):
        paths = [
            Way(name, finder.path(trial, seed))
            for name, trial in ways(options).items()
            if seed == 0 or not name.endswith("alone")
        ]
        turns = [path.steps(kept, target=not path.name.endswith("alone")) for path in paths]
        for _ in zip_longest(*turns):
            pass
        for path in paths:
            done.setdefault(path.name, []).append(path)
        report(done)


def spread(shares: list[float | None]) -> str:
    """Mean and standard deviation of those that are known, in %."""
    found = [100 * share for share in shares if share is not None]
    if not found:
        return ""
    return f"{mean(found):.2f}" + (f" ± {stdev(found):.2f}" if len(found) > 1 else "")


def report(done: Mapping[str, list[Way]]) -> None:
    """Print a row for each way, over the seeds so far."""
    standard = done["standard"]
    print(f"\n{len(standard)} seed(s)")
    print("| selection | processor s | times faster | wall s (train / score / query) | target, test % | validation % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, paths in done.items():
        cpu_s = mean(path.cpu_s for path in paths)
        against = mean(path.cpu_s for path in standard[: len(paths)])
        faster = f"{against / cpu_s:.1f}" if cpu_s else ""
        seconds = [mean(path.parts[part] for path in paths) for part in PARTS]
        parts = " / ".join(f"{part:.1f}" for part in seconds)
        told = " | ".join(spread([getattr(path, value) for path in paths]) for value in ("accuracy", "val_accuracy"))
        print(f"| {name} | {cpu_s:.1f} | {faster} | {sum(seconds):.1f} ({parts}) | {told} |", flush=True)
    alone = {name: paths[0] for name, paths in done.items() if name.endswith("alone")}
    if alone:
        product = 1.0
        for path in alone.values():
            product *= standard[0].cpu_s / path.cpu_s
        total = standard[0].cpu_s / done["fast"][0].cpu_s
        print(f"product of the factors alone {product:.1f}, all together {total:.1f} (first seed)")


if __name__ == "__main__":
    main()
