"""Running a network for what it shows, and leaving it as it was."""

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


@contextmanager
def modes_kept(model: nn.Module) -> Generator[nn.Module]:
    """`model` in eval mode; afterwards each of its modules is in the mode that it was in."""
    training = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, was in training.items():
            module.training = was


@torch.no_grad()
def watch(model: nn.Module, example: Tensor, names: Collection[str], see: Callable[[str, Tensor], None]) -> None:
    """Run `model` in eval mode on `example`, (N, C, H, W); `see` gets name and output of each call of a named layer."""

    def told(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        see(name, output)

    hooks = [model.get_submodule(name).register_forward_hook(partial(told, name)) for name in names]
    try:
        with modes_kept(model):
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
