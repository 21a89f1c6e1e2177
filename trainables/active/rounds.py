"""Rounds of labelling: train, score, query, label.

The initial draw is round 0. Everything random depends on the trial's seed and the number of the round alone, so that a
trajectory that was cut off and taken up again is the one that ran through.
"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainables.active.memory import replay
from trainables.active.network import FlipCounter, ReadNetwork, drop_features, tensors
from trainables.active.pool import Pool
from trainables.active.scoring import shrink
from trainables.active.strategies.registry import READ_FEATURES, strategy_of
from trainables.active.trajectory import RoundCost, Trajectory
from trainables.config import Device, Precision, SelectConfig, TrialConfig
from trainables.data.load import Dataset, Split
from trainables.errors import InfeasibleError
from trainables.keys import selection_network
from trainables.models.build import build, initialise
from trainables.training.loop import Settings, accuracy, fit
from trainables.training.randomness import draw_seed, generator

FAST_LR = 0.2
"""Peak of `schedule: fast`, OneCycle .01 -> .2 -> .001 (CLActive, CoLLAs 2022)."""


def start(config: TrialConfig, seed: int, data: Dataset) -> Trajectory:
    """The initial draw: uniform among the images that may be asked for, the same whatever strategy follows.

    Raises:
        InfeasibleError: there are fewer.

    """
    select = _section(config)
    pool = _unlabelled(select, seed, data, torch.empty(0, dtype=torch.int64))
    if len(pool) < select.initial:
        msg = f"select.initial {select.initial} is more than the {len(pool)} images of the classes that are not locked"
        raise InfeasibleError(msg)
    drawn = torch.randperm(len(pool), generator=generator(seed, "query"))[: select.initial]
    return Trajectory(pool[drawn], (select.initial,), (RoundCost(),))


def advance(config: TrialConfig, seed: int, data: Dataset, device: Device, before: Trajectory) -> "Round":
    """One round: train the selection network on what is labelled, and let it ask for `query_sizes[-1]` images.

    Raises:
        DivergedError: training diverged, or the network gives scores that are no numbers.
        InfeasibleError: the strategy needs what the network has not.

    """
    if before.stopped:
        return Round(before, 0, None)
    return _Turn(config, seed, data, device, before).run()


@dataclass(frozen=True, slots=True)
class Round:
    """What a round gives: the trajectory after it, how many candidates there were, and the network's accuracy.

    `val_accuracy` is null where no network was trained, or no images are held out for validation.
    """

    after: Trajectory
    candidates: int
    val_accuracy: float | None


class _Turn:
    def __init__(self, config: TrialConfig, seed: int, data: Dataset, device: Device, before: Trajectory) -> None:
        self.config = config
        self.select = _section(config)
        self.seed = seed
        self.data = data
        self.device: Device = device
        self.before = before
        self.number = len(before.sizes)

    def run(self) -> Round:
        pool = _unlabelled(self.select, self.seed, self.data, self.before.labelled)
        count = self.select.query_sizes[-1]
        if count > len(pool):
            msg = f"round {self.number} asks for {count} images and {len(pool)} are left; see select.query_sizes"
            raise InfeasibleError(msg)
        if not self.select.trains():
            return self._by_chance(pool, count)
        clock = time.perf_counter()
        data = self._seen_by_network()
        watched = FlipCounter(data, self.device, self._precision) if self.select.strategy == "forgetting" else None
        model = self._trained(data, watched)
        train_s = time.perf_counter() - clock
        network = self._network(model, data, watched)
        clock = time.perf_counter()
        asked = self._ask(network, pool, count)
        query_s = time.perf_counter() - clock - network.seconds
        score_s = network.seconds
        if watched is not None:
            train_s, score_s = train_s - watched.seconds, score_s + watched.seconds
        after = self._labelled(asked, RoundCost(train_s, score_s, query_s), tensors(model) if self._goes_on else {})
        if not len(data.val):
            return Round(after, len(pool), None)
        val_accuracy = accuracy(model, data.val, data, device=self.device)
        return Round(self._plateau(after, val_accuracy), len(pool), val_accuracy)

    def _by_chance(self, pool: Tensor, count: int) -> Round:
        clock = time.perf_counter()
        drawn = torch.randperm(len(pool), generator=self._generator("query"))[:count]
        return Round(self._labelled(pool[drawn], RoundCost(query_s=time.perf_counter() - clock), {}), len(pool), None)

    @property
    def _goes_on(self) -> bool:
        return self.select.replay_ratio is not None

    @property
    def _precision(self) -> Precision:
        return "bf16" if self.config.train.precision == "bf16" else "fp32"

    def _generator(self, stream: str) -> torch.Generator:
        return generator(self.seed, stream, self.number)

    def _seen_by_network(self) -> Dataset:
        """The images at the size that the network sees."""
        size = self.select.proxy_image_size if self.select.proxy else None
        if size is None:
            return self.data
        train, val = (Split(shrink(part.images, size), part.labels) for part in (self.data.train, self.data.val))
        return replace(self.data, train=train, val=val)

    def _trained(self, data: Dataset, watched: FlipCounter | None) -> nn.Module:
        """The network after this round's training, from where the last round left it or from scratch."""
        channels = int(data.mean.numel())
        model = build(selection_network(self.config), channels, data.classes, allow_code=True)
        if self.before.network:
            model.load_state_dict(dict(self.before.network))
        else:
            initialise(model, self._generator("init"))
        if self.select.strategy == "bald":
            drop_features(model, self.select.dropout)
        images = data.train.subset(self._images())
        fit(
            model,
            replace(data, train=images),
            self._settings(len(images)),
            draw_seed(self._generator("batches")),
            watched,
            validate=False,
        )
        return model

    def _images(self) -> Tensor:
        """Indices of the images that this round trains on."""
        ratio = self.select.replay_ratio
        if ratio is None:
            return self.before.labelled
        return replay(self.before.older, self.before.newest, ratio, self._generator("memory"))

    def _settings(self, images: int) -> Settings:
        train, fast = self.config.train, self.select.schedule == "fast"
        if self.config.data.augment == "auto":
            msg = "data.augment is open; a stage takes a resolved config (trainables.config.resolve)"
            raise ValueError(msg)
        return Settings(
            epochs=self.select.epochs or train.epochs,
            lr=FAST_LR if fast else train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            batch_size=min(train.batch_size, images),
            schedule="fast" if fast else train.schedule,
            label_smoothing=train.label_smoothing,
            precision=self._precision,
            augment=self.config.data.augment,
            device=self.device,
        )

    def _network(self, model: nn.Module, data: Dataset, watched: FlipCounter | None) -> ReadNetwork:
        return ReadNetwork(
            model,
            data,
            device=self.device,
            precision=self._precision,
            features=self.select.strategy in READ_FEATURES,
            dropout=self.select.dropout,
            flips=watched.flips if watched else None,
            where=f"round {self.number}",
        )

    def _ask(self, network: ReadNetwork, candidates: Tensor, count: int) -> Tensor:
        labelled = self.before.labelled
        pool = Pool(candidates, labelled, self.data.train.labels[labelled], self.data.classes, network)
        return strategy_of(self.select)(pool, count, self._generator("query"))

    def _labelled(self, asked: Tensor, cost: RoundCost, network: dict[str, Tensor]) -> Trajectory:
        before = self.before
        return replace(
            before,
            labelled=torch.cat([before.labelled, asked]),
            sizes=(*before.sizes, len(asked)),
            costs=(*before.costs, cost),
            network=network,
        )

    def _plateau(self, after: Trajectory, val_accuracy: float) -> Trajectory:
        """Count the rounds without a gain; with as many as `patience` asking ends."""
        if val_accuracy >= after.best + self.select.min_gain:
            return replace(after, best=val_accuracy, stale=0)
        stale = after.stale + 1
        return replace(after, stale=stale, stopped=self.select.patience is not None and stale >= self.select.patience)


def _section(config: TrialConfig) -> SelectConfig:
    if config.select is None:
        msg = "a select stage needs a select section"
        raise ValueError(msg)
    return config.select


def _unlabelled(select: SelectConfig, seed: int, data: Dataset, labelled: Tensor) -> Tensor:
    """The images that may be asked for, ascending.

    The last `locked_classes` classes of a seeded order are out of reach until a share `unlock_at` of the pool is
    labelled, or nothing else is left (the class-incremental pools of CLActive).
    """
    free = torch.ones(len(data.train), dtype=torch.bool)
    free[labelled] = False
    if select.locked_classes and len(labelled) < select.unlock_at * len(data.train):
        order = torch.randperm(data.classes, generator=generator(seed, "classes"))
        locked = torch.isin(data.train.labels, order[-select.locked_classes :])
        if bool((free & ~locked).any()):
            free &= ~locked
    return free.nonzero().flatten()
