"""Which operation of a network puts its channels in other places, so that nobody can follow them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.models.modes import modes_kept

_MOVING = frozenset({"view", "reshape", "transpose", "permute", "unflatten", "movedim", "swapaxes"})


def rearranging(model: nn.Module, example: Tensor) -> str:
    """The first operation that makes another axis of the channels, in words; empty where there is none.

    `example` is one image, shape (1, C, H, W). The model's modes and statistics are as before.
    """
    watch = _Watch()
    hooks = [
        hook
        for name, module in model.named_modules()
        for hook in (
            module.register_forward_pre_hook(partial(watch.enter, name)), module.register_forward_hook(watch.leave)
        )
    ]  # fmt: skip
    try:
        with torch.no_grad(), modes_kept(model), watch:
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.told


class _Watch(TorchFunctionMode):
    """Sees what torch is asked for, and within which module."""

    def __init__(self) -> None:
        super().__init__()
        self.told = ""
        self._inside: list[str] = []

    def enter(self, name: str, _: nn.Module, __: object) -> None:
        self._inside.append(name)

    def leave(self, _: nn.Module, __: object, ___: object) -> None:
        self._inside.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = args[0] if args else None
        if name in _MOVING and not self.told and isinstance(given, Tensor) and _moves(given, made):
            place = self._inside[-1] or "the network itself"
            self.told = f"{name} in {place} makes {tuple(made.shape[1:])} of {tuple(given.shape[1:])}"
        return made


def _moves(before: Tensor, after: Tensor) -> bool:
    """Whether the channels of maps (N, C, H, W) are on another axis, or on several. Flattened maps keep their order."""
    return before.dim() == 4 and after.dim() > 2 and after.shape[:2] != before.shape[:2]
