"""Networks that are not ours: torchvision's by name, and a user's own `package.module:function`."""

import copy
import importlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.errors import CodeError, InfeasibleError
from trainables.model_names import is_code
from trainables.sources import sources_sha256
from trainables.training.randomness import isolated

# Their second and third classifier serves the training of 2014 alone.
_ONE_CLASSIFIER: Mapping[str, Any] = {"aux_logits": False, "init_weights": True}
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"googlenet": _ONE_CLASSIFIER, "inception_v3": _ONE_CLASSIFIER}

_MARK = "__orchestrator_sources_sha256__"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a foreign network is made, so that its constructor can set its first weights once more."""

    config: ModelConfig
    channels: int
    classes: int

    def make(self, seed: int) -> nn.Module:
        """The network with the weights that its constructor gives it when all global random states come from `seed`.

        Those states are put back. The caller has seen to it that a user's own code may run.

        Raises:
            CodeError: a user's own code cannot be imported as it was planned, or failed.
            InfeasibleError: it made no network of plain layers.

        """
        with isolated(seed):
            if is_code(self.config.name):
                return _own(self.config, self.channels, self.classes)
            return _torchvision(self.config.name, self.channels, self.classes)


def refuse_images(config: ModelConfig, channels: int, classes: int, size: int) -> None:
    """Find out whether a foreign network takes images of `size` pixels a side and gives one logit a class.

    It is made and run on two black images in training mode and on one in evaluation mode.

    Raises:
        CodeError: see `Recipe.make`.
        InfeasibleError: it does not.

    """
    model = Recipe(config, channels, classes).make(0)
    with isolated(0), torch.no_grad():
        for training, count in ((True, 2), (False, 1)):
            logits = _run(config, model.train(training), torch.zeros(count, channels, size, size))
            if not isinstance(logits, Tensor) or logits.shape != (count, classes):
                told = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                mode = "training" if training else "evaluation"
                msg = f"{config.name} gives {told} in {mode} mode; logits of shape {(count, classes)} are needed"
                raise InfeasibleError(msg)


def _run(config: ModelConfig, model: nn.Module, images: Tensor) -> object:
    try:
        return model(images)
    except MemoryError:
        raise
    except Exception as error:
        told = _theirs(error) if is_code(config.name) else str(error).strip()
        size = f"{images.shape[-2]}x{images.shape[-1]}"
        msg = f"{config.name} does not take images of {size} pixels (see data.image_size): {told}"
        raise InfeasibleError(msg) from error


def _torchvision(name: str, channels: int, classes: int) -> nn.Module:
    from torchvision import models

    model = models.get_model(name, weights=None, num_classes=classes, **ARGUMENTS.get(name, {}))
    _take_channels(model, channels)
    return model


def _take_channels(model: nn.Module, channels: int) -> None:
    """Put a first convolution of `channels` inputs in the place of one of 3.

    It takes input planes of the one that it replaces, so that its weights have the constructor's distribution, scaled
    by sqrt(old / new), so that the variance of its outputs stays (for inputs of equal variance).
    """
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,  # pyright: ignore[reportArgumentType]
        bias=old.bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        planes = old.weight[:, [channel % old.in_channels for channel in range(channels)]]
        new.weight.copy_(planes * (old.in_channels / channels) ** 0.5)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)


def _own(config: ModelConfig, channels: int, classes: int) -> nn.Module:
    function = _function(config)
    try:
        made = function(channels, classes)
    except (Exception, SystemExit) as error:
        msg = f"model.name {config.name} failed, called with {channels} channels and {classes} classes: "
        raise CodeError(msg + _theirs(error)) from error
    if not isinstance(made, nn.Module):
        msg = f"model.name {config.name} returned a {type(made).__name__}; a torch.nn.Module is needed"
        raise InfeasibleError(msg)
    for name, parameter in made.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            msg = f"model.name {config.name}: {name} has no shape yet; lazy layers need their sizes written out"
            raise InfeasibleError(msg)
    # A copy: the function may hand out one module again and again.
    return copy.deepcopy(made).float()


def _function(config: ModelConfig) -> Callable[[int, int], object]:
    """The user's function, imported from the very sources that the plan saw."""
    module_name, _, function_name = config.name.partition(":")
    found = sources_sha256(config.name)
    if found != config.code_sha256:
        raise _changed(config, found)
    try:
        module = importlib.import_module(module_name)
        top = importlib.import_module(module_name.partition(".")[0])
    except (Exception, SystemExit) as error:
        msg = f"model.name {config.name}: {module_name} cannot be imported: {_theirs(error)}"
        raise CodeError(msg) from error
    # A process imports a module once, whatever becomes of its file afterwards.
    if vars(top).setdefault(_MARK, found) != found:
        raise _changed(config, found)
    function = getattr(module, function_name, None)
    if not callable(function):
        msg = f"model.name {config.name}: {module_name} has no function {function_name}"
        raise CodeError(msg)
    return function


def _changed(config: ModelConfig, found: str) -> CodeError:
    return CodeError(
        f"model.name {config.name}: the code changed after the plan: its sources have SHA-256 {found[:12]}..., planned "
        f"were {(config.code_sha256 or 'none')[:12]}...; start the sweep anew to plan with the code as it is"
    )


def _theirs(error: BaseException) -> str:
    """The error and its traceback from the first line that is not ours."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    return f"{type(error).__name__}: {error}\n{''.join(lines)}".strip()
