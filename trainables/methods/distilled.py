"""Any method, with a loss beside its own by which the network follows the one that it began as."""

import copy
from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainables.errors import InfeasibleError
from trainables.method_config import DistillFields
from trainables.methods.base import Method
from trainables.models.compact import Compact
from trainables.models.modes import modes_kept, watch
from trainables.training.distill import hint_loss, logits_loss, refuse_other_classes

Outputs = dict[str, Tensor]


class Distilled(Method):
    """(1 - d) * (the method's loss) + d * (logits' loss + hint_weight * sum of the hints' losses).

    d is `distill`; the hints are the losses of layers' outputs that `distill_losses` names, each a mean over the layers
    (`trainables.training.distill` has the formulas). Layers are found by name in both networks, so that what a method
    puts in the place of one is compared as a whole.

    Args:
        inner: the method.
        config: its leaves of distillation.
        teacher: which network is followed, of equal inputs; None: the one that the method begins with.

    """

    def __init__(self, inner: Method, config: DistillFields, teacher: nn.Module | None = None) -> None:
        self.inner = inner
        self.config = config
        self.teacher = teacher
        self.seed = inner.seed
        self.calibration_images = inner.calibration_images
        self.layers: tuple[str, ...] = ()
        self._student_gave: Outputs = {}
        self._teacher_gave: Outputs = {}
        self._watching: list[RemovableHandle] = []

    def chosen_images(self, available: int) -> Tensor | None:
        """As the method says."""
        return self.inner.chosen_images(available)

    def apart_images(self, available: int) -> Tensor | None:
        """As the method says."""
        return self.inner.apart_images(available)

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Keep the network as its own teacher, then change it as the method does.

        Raises:
            InfeasibleError: the teacher has other classes, there is no layer to follow, or what the method says.

        """
        teacher = copy.deepcopy(model) if self.teacher is None else self.teacher
        self.teacher = teacher.eval().requires_grad_(requires_grad=False)
        with torch.no_grad(), modes_kept(model):
            refuse_other_classes(model(example), teacher(example))
        if self._hints():
            self.layers = self.config.distill_layers or last_of_each_size(teacher, example)
            _refuse_unknown(teacher, self.layers)
            _watch_into(self._teacher_gave, teacher, self.layers)
            self._refuse_silent(teacher, example)
        self.inner.transform(model, example)

    def _hints(self) -> list[str]:
        return [loss for loss in self.config.distill_losses if loss != "logits"]

    @torch.no_grad()
    def _refuse_silent(self, teacher: nn.Module, example: Tensor) -> None:
        teacher(example)
        silent = [name for name in self.layers if not isinstance(self._teacher_gave.get(name), Tensor)]
        self._teacher_gave.clear()
        if silent:
            msg = f"compress.distill_layers: layer {silent[0]} gives no tensor in a pass of {type(teacher).__name__}"
            raise InfeasibleError(msg)

    def calibrate(self, model: nn.Module, images: Tensor) -> None:
        """As the method does."""
        self.inner.calibrate(model, images)

    def judge(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """As the method does."""
        self.inner.judge(model, images, labels)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """As the method does; then the layers are watched as they are now.

        Raises:
            InfeasibleError: the method has removed a layer that should follow, or what the method says.

        """
        self.inner.before_epoch(model, epoch, epochs)
        _refuse_unknown(model, self.layers)
        self._watching = _watch_into(self._student_gave, model, self.layers)

    def adopt(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """As the method does."""
        self.inner.adopt(model, tensors)

    def loss(self, model: nn.Module, images: Tensor, logits: Tensor, task: Tensor) -> Tensor:
        """The method's loss and distillation's, mixed.

        Raises:
            InfeasibleError: the outputs of a layer cannot be compared as asked.

        """
        if self.teacher is None:
            msg = "distillation begins with transform, which was not called"
            raise RuntimeError(msg)
        with torch.no_grad():
            target = self.teacher.to(images.device)(images)
        own, share = self.inner.loss(model, images, logits, task), self.config.distill
        mixed = (1 - share) * own + share * self._followed(logits, target)
        self._student_gave.clear()
        self._teacher_gave.clear()
        return mixed

    def _followed(self, logits: Tensor, target: Tensor) -> Tensor:
        parts: list[Tensor] = []
        if "logits" in self.config.distill_losses:
            parts.append(logits_loss(logits, target, self.config.temperature))
        for kind in self._hints():
            losses = [hint_loss(kind, name, self._student_gave[name], self._teacher_gave[name]) for name in self.layers]
            parts.append(self.config.hint_weight * torch.stack(losses).mean())
        return sum(parts[1:], start=parts[0])

    def after_step(self, model: nn.Module, lr: float) -> None:
        """As the method does."""
        self.inner.after_step(model, lr)

    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """As the method does, on a network that nothing watches."""
        while self._watching:
            self._watching.pop().remove()
        self.inner.after_epoch(model, epoch, epochs)

    def protected(self, epoch: int, epochs: int) -> bool:
        """As the method says."""
        return self.inner.protected(epoch, epochs)

    def finalize(self, model: nn.Module) -> Compact:
        """As the method does."""
        return self.inner.finalize(model)


def last_of_each_size(model: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Names of the outermost modules that are the last to give a map (N, C, H, W) of a height and width, H W > 1.

    In a residual network these are its stages: all that is computed at one size of the image has been added up there.

    Raises:
        InfeasibleError: there is no such module.

    """
    found: dict[tuple[int, ...], str] = {}

    def see(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            found[tuple(output.shape[2:])] = name

    watch(model, example, [name for name, _ in model.named_modules() if name], see)
    if not found:
        msg = f"no layer of {type(model).__name__} gives images whose features could follow a teacher's"
        raise InfeasibleError(f"{msg}; name layers (compress.distill_layers), or take logits (compress.distill_losses)")
    return tuple(found.values())


def _refuse_unknown(model: nn.Module, layers: Collection[str]) -> None:
    known = dict(model.named_modules())
    for name in layers:
        if not name or name not in known:
            msg = f"compress.distill_layers: {type(model).__name__} has no layer {name!r}"
            raise InfeasibleError(f"{msg}; it has {', '.join(list(known)[1:9])} and others below these")


def _watch_into(outputs: Outputs, model: nn.Module, layers: Collection[str]) -> list[RemovableHandle]:
    """Put what `layers` give at each forward pass of `model` into `outputs`, by name."""
    return [model.get_submodule(name).register_forward_hook(partial(_keep, outputs, name)) for name in layers]


def _keep(outputs: Outputs, name: str, _: nn.Module, __: object, output: Tensor) -> None:
    outputs[name] = output
