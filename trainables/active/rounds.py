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
from trainables.active.trajectory import Trajectory
from trainables.config import Device, Precision, SelectConfig, TrialConfig
from trainables.data.load import Dataset, Split
from trainables.errors import DivergedError, InfeasibleError
from trainables.keys import select_of, selection_network
from trainables.models.build import build, initialise
from trainables.training.loop import Settings, fit, predict
from trainables.training.randomness import draw_seed, generator, isolated

FAST_LR = 0.2
"""Peak of `schedule: fast`, OneCycle .01 -> .2 -> .001 (CLActive, CoLLAs 2022)."""


@dataclass(frozen=True, slots=True)
class RoundCost:
    """Busy seconds of a round: training the selection network, reading the pool with it, choosing among what it read.

    Reading is lazy, so that it counts as `score_s` wherever a strategy asks for it. Validation is no part of it.
    """

    train_s: float = 0.0
    score_s: float = 0.0
    query_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.train_s + self.score_s + self.query_s


@dataclass(frozen=True, slots=True)
class Round:
    """What a round gives: the trajectory after it, how many images it could ask for, and the network's accuracy.

    `val_accuracy` is null where no network was trained, or no images are held out for validation. `cost` is null where
    asking had ended before.
    """

    after: Trajectory
    candidates: int
    cost: RoundCost | None
    val_accuracy: float | None = None


def start(config: TrialConfig, seed: int, data: Dataset) -> Round:
    """The initial draw: uniform among the images that may be asked for, the same whatever strategy follows.

    Raises:
        InfeasibleError: there are fewer.

    """
    select = select_of(config)
    pool = _unlabelled(select, seed, data, torch.empty(0, dtype=torch.int64), select.initial)
    if len(pool) < select.initial:
        msg = f"select.initial {select.initial} is more than the {len(pool)} images of the pool"
        raise InfeasibleError(msg)
    drawn = torch.randperm(len(pool), generator=generator(seed, "query"))[: select.initial]
    return Round(Trajectory(pool[drawn], (select.initial,)), len(pool), RoundCost())


def advance(config: TrialConfig, seed: int, data: Dataset, device: Device, before: Trajectory) -> Round:
    """One round: train the selection network on what is labelled, and let it ask for `query_sizes[-1]` images.

    Layers that draw from the global random state, such as dropout, find one that depends on the seed and the round.

    Raises:
        DivergedError: training diverged, or the network gives scores that are no numbers.
        InfeasibleError: too few images are left, or the strategy needs what the network has not.

    """
    if before.stopped:
        return Round(before, 0, None)
    turn = _Turn(config, seed, data, device, before)
    with isolated(draw_seed(generator(seed, "layers", turn.number)), device):
        try:
            return turn.run()
        except DivergedError as error:
            raise DivergedError(f"round {turn.number} of labelling: {error}{turn.advice}") from error


class _Turn:
    def __init__(self, config: TrialConfig, seed: int, data: Dataset, device: Device, before: Trajectory) -> None:
        self.config = config
        self.select = select_of(config)
        self.seed = seed
        self.data = data
        self.device: Device = device
        self.before = before
        self.number = len(before.sizes)

    @property
    def advice(self) -> str:
        """No leaf sets the rate of the fast schedule."""
        return " (of select.schedule fast; with select.schedule train it is train.lr)" if self._fast else ""

    def run(self) -> Round:
        count = self.select.query_sizes[-1]
        pool = _unlabelled(self.select, self.seed, self.data, self.before.labelled, count)
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
        after = self._labelled(asked, tensors(model) if self._goes_on else {})
        cost = RoundCost(train_s, score_s, query_s)
        if not len(data.val):
            return Round(after, len(pool), cost)
        val_accuracy = self._validated(model, data)
        return Round(self._plateau(after, val_accuracy), len(pool), cost, val_accuracy)

    def _by_chance(self, pool: Tensor, count: int) -> Round:
        clock = time.perf_counter()
        drawn = torch.randperm(len(pool), generator=self._generator("query"))[:count]
        cost = RoundCost(query_s=time.perf_counter() - clock)
        return Round(self._labelled(pool[drawn], {}), len(pool), cost)

    def _validated(self, model: nn.Module, data: Dataset) -> float:
        logits = predict(model, self._at_size(data.val), data, device=self.device)
        if not bool(logits.isfinite().all()):
            msg = "the logits of validation images are no numbers; try a smaller lr"
            raise DivergedError(msg)
        return float((logits.argmax(1) == data.val.labels).float().mean())

    @property
    def _fast(self) -> bool:
        return self.select.schedule == "fast"

    @property
    def _goes_on(self) -> bool:
        return self.select.replay_ratio is not None

    @property
    def _precision(self) -> Precision:
        return "bf16" if self.config.train.precision == "bf16" else "fp32"

    def _generator(self, stream: str) -> torch.Generator:
        return generator(self.seed, stream, self.number)

    def _seen_by_network(self) -> Dataset:
        """The training images at the size that the network sees."""
        return replace(self.data, train=self._at_size(self.data.train))

    def _at_size(self, split: Split) -> Split:
        size = self.select.proxy_image_size if self.select.proxy else None
        return split if size is None else Split(shrink(split.images, size), split.labels)

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
        train = self.config.train
        if self.config.data.augment == "auto":
            msg = "data.augment is open; a stage takes a resolved config (trainables.config.resolve)"
            raise ValueError(msg)
        return Settings(
            epochs=self.select.epochs or train.epochs,
            lr=FAST_LR if self._fast else train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            batch_size=min(train.batch_size, images),
            schedule="fast" if self._fast else train.schedule,
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
        )

    def _ask(self, network: ReadNetwork, candidates: Tensor, count: int) -> Tensor:
        labelled = self.before.labelled
        pool = Pool(candidates, labelled, self.data.train.labels[labelled], self.data.classes, network)
        return strategy_of(self.select)(pool, count, self._generator("query"))

    def _labelled(self, asked: Tensor, network: dict[str, Tensor]) -> Trajectory:
        before = self.before
        return replace(
            before,
            labelled=torch.cat([before.labelled, asked]),
            sizes=(*before.sizes, len(asked)),
            network=network,
        )

    def _plateau(self, after: Trajectory, val_accuracy: float) -> Trajectory:
        """Count the rounds without a gain; with as many as `patience` asking ends."""
        if val_accuracy >= after.best + self.select.min_gain:
            return replace(after, best=val_accuracy, stale=0)
        stale = after.stale + 1
        return replace(after, stale=stale, stopped=self.select.patience is not None and stale >= self.select.patience)


def _unlabelled(select: SelectConfig, seed: int, data: Dataset, labelled: Tensor, count: int) -> Tensor:
    """The images that may be asked for, ascending.

    The last `locked_classes` classes of a seeded order are out of reach until a share `unlock_at` of the pool is
    labelled, or the others have fewer than `count` images left (the class-incremental pools of CLActive).
    """
    free = torch.ones(len(data.train), dtype=torch.bool)
    free[labelled] = False
    if select.locked_classes and len(labelled) < select.unlock_at * len(data.train):
        order = torch.randperm(data.classes, generator=generator(seed, "classes"))
        unlocked = free & ~torch.isin(data.train.labels, order[-select.locked_classes :])
        free = unlocked if int(unlocked.sum()) >= count else free
    return free.nonzero().flatten()
