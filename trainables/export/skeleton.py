"""A network without memory for its weights, so that a file is checked before anything large is allocated for it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.errors import PackedFileError
from trainables.models.gather import Gather

MAP_LIMIT = 1 << 28
"""Bytes that the input or one layer's output may take for one image: 256 channels of 512 x 512 in fp32."""


class WithoutMemory(TorchFunctionMode):
    """While it is entered, weights of new layers have a shape but no memory, and drawing their values does nothing.

    The meta device alone would import torch's compiler to draw them (500 modules, 1.5 to 4 s).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `func`, unless it allocates a weight or fills one that has no memory."""
        options = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**options, "device": "meta"})
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **options)


@torch.no_grad()
def check_one_image(model: nn.Module, channels: int, image_size: int) -> None:
    """Run one image through `model`, in which no layer may need more than `MAP_LIMIT`.

    Raises:
        PackedFileError: the layers do not fit one another, or a layer's output is too large.

    """
    _check_size("the image", channels * image_size**2)
    hooks = [
        module.register_forward_pre_hook(_check_output)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | Gather)
    ]
    try:
        model(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        msg = f"the layers of the packed file do not fit one another or the image: {error}"
        raise PackedFileError(msg) from error
    finally:
        for hook in hooks:
            hook.remove()


def _check_output(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse the output of a layer before it is computed; a convolution's sides shrink by its stride alone."""
    shape = inputs[0].shape
    if isinstance(layer, Gather):
        _check_size("a gathering", layer.get_buffer("index").numel() * math.prod(shape[2:]))
        return
    filters = layer.get_parameter("weight").shape[0]
    if isinstance(layer, nn.Conv2d):
        sides = (math.ceil(side / step) for side, step in zip(shape[-2:], layer.stride, strict=True))
        _check_size("a layer", filters * math.prod(sides))
    else:
        _check_size("a layer", filters * math.prod(shape[:-1]))


def _check_size(what: str, numbers: int) -> None:
    if 4 * numbers > MAP_LIMIT:
        msg = f"the packed file's network is refused: {what} takes {4 * numbers} bytes, at most {MAP_LIMIT} are allowed"
        raise PackedFileError(msg)
