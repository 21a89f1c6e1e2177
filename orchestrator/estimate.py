"""How long a stage will take: from finished stages of the same workload, else a guess from its arithmetic."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from orchestrator.ledger import StageRecord
from trainables.config import NATIVE_WIDTH, TrialConfig
from trainables.keys import Stage, selection_network
from trainables.model_names import TORCHVISION_MMACS

Basis = Literal["history", "guess"]

MMACS_AT_32_PIXELS: dict[str, float] = {
    "resnet8": 12.6, "resnet14": 26.9, "resnet20": 41.0, "resnet32": 69.4, "resnet56": 126.1,
    "resnet18": 556.0, "vgg_small": 616.0,
}  # fmt: skip
"""Millions of multiply-accumulates of one 32-pixel image at the native width."""

MMACS_OF_AN_UNKNOWN = 100.0
"""As much for a user's own model, of which nothing is known before it has run."""

# Rough figures of one 3.6 GHz core; they order the work until the first stages have been timed.
GMACS_PER_S = {"fp32": 30.0, "bf16": 60.0, "auto": 30.0}
CALLS_S_PER_STEP = 0.005
GPU_FACTOR = 500.0  # ResNet-18 on an H200: 1,200


@dataclass(frozen=True, slots=True)
class Estimate:
    """Busy seconds of a stage on one worker, and what they rest on."""

    seconds: float
    basis: Basis


def network(config: TrialConfig) -> str:
    """Names a network and the size of its images: what one image costs."""
    model, size = config.model, config.data.image_size
    if model.ours:
        return f"{model.name}/{model.width} {model.stem} {model.block} {size}x{size}"
    code = f" {model.code_sha256[:12]}" if model.code_sha256 else ""
    return f"{model.name}{code} {size}x{size}"


def workload(stage: Stage) -> str:
    """Names the kind of work of a stage: stages of one workload take the same time per image."""
    config = _worked_on(stage)
    parts: tuple[object, ...] = (stage.kind, network(config), config.data.name, config.data.augment, stage.device)
    if stage.kind != "evaluate":
        parts += (config.train.precision, f"batch {config.train.batch_size}")
    if stage.kind == "compress" and config.compress:
        parts += (config.compress.method,)
    if stage.kind == "select" and config.select:
        parts += (config.select.strategy,)
    return " ".join(map(str, parts))


def _worked_on(stage: Stage) -> TrialConfig:
    """The config with the network, and the size of its images, that the stage itself runs."""
    config, select = stage.config, stage.config.select
    if stage.kind != "select" or select is None or select.proxy is None:
        return config
    size = select.proxy_image_size or config.data.image_size
    data = config.data.model_copy(update={"image_size": size})
    return config.model_copy(update={"data": data, "model": selection_network(config)})


def images_seen(stage: Stage) -> int:
    """How many images pass through the network forwards (evaluate) or both ways (select, train, compress)."""
    training, validation, test = stage.config.data.split_sizes()
    if stage.kind == "evaluate":
        return validation + test
    if stage.kind == "select":
        return _selecting_images(stage.config, training)
    if stage.config.select is not None:
        training = min(training, stage.config.select.budget)
    compress = stage.config.compress
    return training * (stage.config.train.epochs if stage.kind == "train" or compress is None else compress.epochs)


def _selecting_images(config: TrialConfig, pool: int) -> int:
    """Images of a round: those it trains on each epoch, and a third of those it only reads.

    `forgetting` reads the whole pool after each epoch.
    """
    select = config.select
    if select is None or not select.trains() or not select.query_sizes:
        return 0
    asked, replayed = select.query_sizes[-1], select.replay_ratio
    labelled = select.budget - asked
    newest = select.query_sizes[-2] if len(select.query_sizes) > 1 else select.initial
    seen = labelled if replayed is None else min(labelled, round((1 + replayed) * newest))
    epochs = select.epochs or config.train.epochs
    read = min(pool - labelled, select.pool_cap or pool)
    watched = epochs * pool if select.strategy == "forgetting" else 0
    return seen * epochs + (read + watched) // 3


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of a stage's work from its config alone: its workload, its images and a guess of its seconds."""

    workload: str
    images: int
    guess_s: float


class Works:
    """The work of stages; most stages of a study differ in leaves that make no other work of it."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[TrialConfig, Work]] = {}

    def of(self, stage: Stage) -> Work:
        """What is known of a stage's work."""
        config, method = stage.config, stage.config.compress
        sections = (config.data, config.select, config.model, config.train)
        way = (method.method, method.epochs) if method else None
        identity = (stage.kind, stage.device, way, *map(id, sections))
        known = self._known.get(identity)
        if known is None:
            # with the config, so that no other object takes the place of its sections in memory
            known = self._known[identity] = config, Work(workload(stage), images_seen(stage), _guess(stage))
        return known[1]


class Estimator:
    """Seconds per image by workload, learnt from finished stages."""

    def __init__(self, records: Iterable[StageRecord] = ()) -> None:
        self.works = Works()
        self._rates: defaultdict[str, list[float]] = defaultdict(list)
        self._medians: dict[str, float] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: StageRecord) -> None:
        """Take a finished stage into account."""
        if record.status == "complete" and record.images > 0:
            self._rates[record.workload].append(record.busy_s / record.images)
            self._medians.pop(record.workload, None)

    def estimate(self, stage: Stage) -> Estimate:
        """Seconds that `stage` will be busy."""
        work = self.works.of(stage)
        if work.workload not in self._rates:
            return Estimate(work.guess_s, "guess")
        median = self._medians.get(work.workload)
        if median is None:
            median = self._medians[work.workload] = statistics.median(self._rates[work.workload])
        return Estimate(median * work.images, "history")


def _guess(stage: Stage) -> float:
    config, images = _worked_on(stage), images_seen(stage)
    passes = 1 if stage.kind == "evaluate" else 3
    gmacs = _mmacs(config) / 1e3 * passes * images
    steps = images / config.train.batch_size
    seconds = gmacs / GMACS_PER_S[config.train.precision] + steps * CALLS_S_PER_STEP * passes / 3
    return seconds / (GPU_FACTOR if stage.device == "cuda" else 1.0)


def _mmacs(config: TrialConfig) -> float:
    size = config.data.image_size or config.data.native_size
    if not config.model.ours:
        at_224 = TORCHVISION_MMACS.get(config.model.name)
        return MMACS_OF_AN_UNKNOWN * (size / 32) ** 2 if at_224 is None else at_224 * (size / 224) ** 2
    native = NATIVE_WIDTH[config.model.name]
    width = config.model.width or native
    downscaling = 16 if config.model.stem == "imagenet" else 1
    return MMACS_AT_32_PIXELS[config.model.name] * (size / 32) ** 2 * (width / native) ** 2 / downscaling
