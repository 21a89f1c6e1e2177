"""The one training loop, and prediction."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import Augment, Device, Precision
from trainables.data.load import Dataset, Split, normalise
from trainables.errors import CheckpointError, DivergedError, InfeasibleError
from trainables.training.augment import AUGMENTATIONS
from trainables.training.randomness import generator
from trainables.training.schedules import SCHEDULES
from trainables.training.sgd import Sgd
from trainables.training.steps import step_of

# Images are gathered, augmented and normalised this many bytes (of uint8) at a time. On a CPU: few operations for small
# images, and for large ones a working set that stays in the cache. On a GPU: few waits for random numbers.
CHUNK_BYTES: Mapping[Device, int] = {"cpu": 1 << 20, "cuda": 1 << 26}


class Hooks(Protocol):
    """What a compression method does around the loop (`trainables.methods.base.Method` has these)."""

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Called before epoch `epoch` (from 0) of `epochs`; it may put other layers or parameters into the model."""
        ...

    def loss(self, model: nn.Module, images: Tensor, logits: Tensor, task: Tensor) -> Tensor:
        """What a step minimises, given the task's loss.

        On a GPU the first two steps of each epoch call it; a third call is recorded, and replayed from then on. What
        Python decides in it is decided then, so it may not count calls.
        """
        ...

    def after_step(self, model: nn.Module, lr: float) -> None:
        """Called after each optimizer step, which had the rate `lr`."""
        ...

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Called after epoch `epoch` (from 0) of `epochs`."""
        ...

    def adopt(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Give the model the layers and shapes that `tensors` of a checkpoint, by name, have; values follow."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train: the resolved leaves of `train` (or of `compress` where it has them), augmentation and device."""

    epochs: int
    lr: float
    momentum: float
    weight_decay: float
    batch_size: int
    schedule: Literal["onecycle", "cosine", "fast"]
    label_smoothing: float
    precision: Precision
    augment: Augment
    device: Device


def fit(
    model: nn.Module,
    data: Dataset,
    settings: Settings,
    seed: int,
    hooks: Hooks | None = None,
    *,
    validate: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place with SGD-Nesterov; its weights after the last epoch stand, whatever came before.

    The order of images comes from (seed, "batches"), augmentation from (seed, "augmentation"); a last batch that is
    not full is dropped. Weights of one dimension or none (BN, biases, scales) are not decayed. At one thread equal
    arguments give equal weights, bit for bit.

    Returns:
        A record per epoch: `epoch` (from 1), `loss` (mean over its steps), `lr` (of its last step), `val_accuracy`
        (fraction; where `validate` asks for it) and `images_per_s` (training alone, without the validation).

    Raises:
        InfeasibleError: there are fewer training images than one batch.
        DivergedError: the loss is not finite.

    """
    training = Training(model, data, settings, seed, hooks, validate=validate)
    while not training.finished:
        training.run_epoch()
    return training.records


class Training:
    """A training under way, epoch by epoch; see `fit`, whose arguments and errors are its own.

    Between two epochs all that it will depend on later are `tensors`, `records` and the global random states: what a
    hook keeps from epoch to epoch must lie in buffers of the model or follow from the number of the epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        settings: Settings,
        seed: int,
        hooks: Hooks | None = None,
        *,
        validate: bool = True,
    ) -> None:
        if len(data.train) < settings.batch_size:
            msg = f"{len(data.train)} training images are less than one batch of {settings.batch_size}"
            raise InfeasibleError(f"{msg} (train.batch_size)")
        model.to(settings.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.settings = settings
        self.records: list[dict[str, float]] = []
        self._model = model
        self._data = data
        self._hooks = hooks
        self._validate = validate
        self._batches = _Batches(data, settings, seed)
        self._optimize(None)

    def _optimize(self, before: Sgd | None) -> None:
        """Make the optimizer of the parameters as they are; those that `before` moved keep their velocities."""
        settings, model = self.settings, self._model
        self._optimizer = Sgd(model.parameters(), settings.momentum, settings.weight_decay, before)
        loss = partial(_loss, settings=settings, hooks=self._hooks)
        self._step = step_of(model, self._optimizer, loss, settings.device)

    def _follow(self) -> None:
        """Train the parameters that a hook put in the place of others."""
        if not self._optimizer.moves(self._model.parameters()):
            self._model.to(self.settings.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            self._optimize(self._optimizer)

    @property
    def finished(self) -> bool:
        """Whether no epoch is left."""
        return len(self.records) >= self.settings.epochs

    @property
    def rate_rises(self) -> bool:
        """Whether the learning rate will be higher at the end of the next epoch than it was at that of the last one."""
        done = len(self.records)
        return not self.finished and self._rate(done + 1, -1) > self._rate(done, -1)

    def run_epoch(self) -> None:
        """One more epoch, and its record."""
        settings, hooks, epoch = self.settings, self._hooks, len(self.records)
        if hooks is not None:
            hooks.before_epoch(self._model, epoch, settings.epochs)
            self._follow()
        start = time.perf_counter()
        loss = self._steps(epoch)
        seconds = time.perf_counter() - start
        if hooks is not None:
            hooks.after_epoch(self._model, epoch, settings.epochs)
        validated = {"val_accuracy": _validate(self._model, self._data, settings, epoch)} if self._validate else {}
        self.records.append(
            {
                "epoch": epoch + 1,
                "loss": loss,
                "lr": self._rate(epoch + 1, -1),
                **validated,
                "images_per_s": self._batches.steps * settings.batch_size / seconds,
            }
        )

    def tensors(self) -> dict[str, Tensor]:
        """What changes from epoch to epoch: weights, buffers and velocities themselves, and copies of random states."""
        states = {name: source.get_state() for name, source in self._batches.sources.items()}
        return self._trained() | {f"random.{name}": state for name, state in states.items()}

    def go_on_from(self, tensors: Mapping[str, Tensor], records: Sequence[Mapping[str, float]]) -> None:
        """Take up a training of equal arguments where `tensors` and `records` were taken from it.

        Raises:
            CheckpointError: the tensors are those of another training.

        """
        try:
            if self._hooks is not None:
                changing = ((name, tensor) for name, tensor in tensors.items() if name.startswith("model."))
                self._hooks.adopt(self._model, {name.removeprefix("model."): tensor for name, tensor in changing})
                self._follow()
            own = self._trained()
            for name, tensor in own.items():
                _fill(tensor, tensors[name])
            for name, source in self._batches.sources.items():
                source.set_state(tensors[f"random.{name}"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            msg = f"a checkpoint of another training: {error}"
            raise CheckpointError(msg) from error
        self.records = [dict(record) for record in records]

    def _trained(self) -> dict[str, Tensor]:
        """Weights, all buffers, those that `state_dict` leaves out too, and velocities."""
        model = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {f"model.{name}": tensor for name, tensor in model} | {
            f"velocity.{number}": tensor for number, tensor in enumerate(self._optimizer.velocities)
        }

    def _steps(self, epoch: int) -> float:
        """One pass over the training images; the mean loss."""
        self._model.train()
        total = torch.zeros((), device=self.settings.device)
        self._step.begin_epoch()
        for number, (images, labels) in enumerate(self._batches.epoch()):
            total += self._step(images, labels, self._rate(epoch, number))
            if self._hooks is not None:
                self._hooks.after_step(self._model, self._rate(epoch, number))
        mean = float(total) / self._batches.steps  # the only wait for the device
        if not math.isfinite(mean):
            raise _diverged(f"the loss became {mean}", self.settings, epoch)
        return mean

    def _rate(self, epoch: int, step: int) -> float:
        """The learning rate so many steps after the beginning of an epoch."""
        steps, rate = self._batches.steps, SCHEDULES[self.settings.schedule]
        return rate(epoch * steps + step, self.settings.epochs * steps, self.settings.lr)


@torch.no_grad()
def _fill(tensor: Tensor, values: Tensor) -> None:
    """Copy `values` in; strides stay, as a kernel and with it the last bit may depend on them."""
    if tensor.shape != values.shape or tensor.dtype != values.dtype:
        msg = f"{values.dtype} {tuple(values.shape)} in place of {tensor.dtype} {tuple(tensor.shape)}"
        raise ValueError(msg)
    tensor.copy_(values)


def predict(model: nn.Module, split: Split, data: Dataset, batch_size: int = 400, device: Device = "cpu") -> Tensor:
    """Logits of `split` in eval mode and fp32, (N, classes), on the CPU; the model's mode is restored.

    Images are normalised with the training statistics of `data`.
    """
    training = model.training
    model.to(device).eval()
    with torch.no_grad():
        parts = [model(_channels_last(normalise(images.to(device), data))) for images in split.images.split(batch_size)]
    model.train(training)
    return torch.cat(parts).float().cpu()


def accuracy(model: nn.Module, split: Split, data: Dataset, batch_size: int = 400, device: Device = "cpu") -> float:
    """Share of `split` whose largest logit is the label's; see `predict`."""
    return _share_correct(predict(model, split, data, batch_size, device), split)


class _Batches:
    """The training images as normalised batches, in a new order each epoch."""

    def __init__(self, data: Dataset, settings: Settings, seed: int) -> None:
        self.data = data
        self.images = data.train.images.to(settings.device)
        self.labels = data.train.labels.to(settings.device)
        self.batch_size = settings.batch_size
        self.steps = len(data.train) // settings.batch_size
        self.sources = {name: generator(seed, name) for name in ("batches", "augmentation")}
        self.augment = AUGMENTATIONS[settings.augment]
        batch_bytes = settings.batch_size * data.train.images[0].numel()
        self.chunk = settings.batch_size * max(1, CHUNK_BYTES[settings.device] // batch_bytes)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images fp32 (B, C, H, W) in channels_last, labels (B,)) of each full batch."""
        order = torch.randperm(len(self.labels), generator=self.sources["batches"])[: self.steps * self.batch_size]
        for indices in order.to(self.labels.device).split(self.chunk):
            images = self.augment(self.images[indices], self.sources["augmentation"])
            ready = normalise(_channels_last(images), self.data)
            yield from zip(ready.split(self.batch_size), self.labels[indices].split(self.batch_size), strict=True)


def _validate(model: nn.Module, data: Dataset, settings: Settings, epoch: int) -> float:
    logits = predict(model, data.val, data, device=settings.device)
    if not bool(logits.isfinite().all()):  # the last step may spoil the weights after its loss was taken
        raise _diverged("the logits of validation images are not finite", settings, epoch)
    return _share_correct(logits, data.val)


def _share_correct(logits: Tensor, split: Split) -> float:
    return int((logits.argmax(1) == split.labels).sum()) / len(split)


def _diverged(what: str, settings: Settings, epoch: int) -> DivergedError:
    return DivergedError(f"{what} in epoch {epoch + 1} of {settings.epochs}; try a smaller lr than {settings.lr}")


def _loss(model: nn.Module, images: Tensor, labels: Tensor, settings: Settings, hooks: Hooks | None) -> Tensor:
    autocast = torch.autocast(settings.device, torch.bfloat16, enabled=settings.precision == "bf16")
    with autocast:
        logits = model(images)
    task = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
    if hooks is None:
        return task
    with autocast:
        return hooks.loss(model, images, logits, task)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
