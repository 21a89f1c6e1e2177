"""What a network says of unlabelled images, read as fast as the machine allows."""

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.active.fused import fuse
from trainables.config import Device, Precision
from trainables.data.load import Dataset, normalise
from trainables.errors import InfeasibleError
from trainables.models.build import first_layer, last_layer
from trainables.models.modes import modes_kept

# What the first layer gives for the images of a batch. On a CPU it should stay in the cache until the next layer reads
# it; on a GPU a batch only has to be large.
BATCH_BYTES: Mapping[Device, int] = {"cpu": 1 << 21, "cuda": 1 << 27}

CONFIRMED = 8
"""Images of which a rewritten network must say what the network itself says."""

TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "bf16": 0.1}
"""As a share of the largest logit; rounding makes a hundredth of it."""

SHRUNK_TOGETHER = 256
"""Images whose fp32 copy stays in the cache."""

_Part = tuple[Tensor, Tensor]
"""Logits (N, K) and features (N, D) of some images."""

_Network = Callable[[Tensor], _Part]
"""From normalised images."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Logits (N, K) and, where they were asked for, features (N, D): fp32, on the CPU."""

    logits: Tensor
    features: Tensor | None


def read_pool(
    model: nn.Module, images: Tensor, data: Dataset, *, precision: Precision, device: Device, features: bool
) -> Reading:
    """What `model` says of uint8 images (N, C, H, W) in eval mode and without augmentation; it stays as it was.

    Features are the inputs of the last linear layer. Images are normalised with the training statistics of `data`. On
    a CPU the network is rewritten where that can be done (`trainables.active.fused`); on one thread equal arguments
    give equal numbers. With fp32 they are those of `trainables.training.loop.predict` up to rounding; with bf16 the
    convolutions read and give 16 bits. What is not a number stays so.

    Raises:
        InfeasibleError: features are asked for, and the network has no linear layer at its end.

    """
    last = last_layer(model)
    if features:
        refuse_without_features(model)
    if len(images) == 0:  # one black image tells the shapes
        black = images.new_zeros(1, *images.shape[1:])
        one = read_pool(model, black, data, precision=precision, device=device, features=features)
        return Reading(one.logits[:0], None if one.features is None else one.features[:0])
    placed = _placed(model, device)
    batches = _Batches(images, data, device, _batch_size(placed, images, precision, device))
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
    with modes_kept(placed), torch.no_grad(), autocast:
        fused = fuse(placed, precision, last, features) if device == "cpu" else None
        begun = None if fused is None else batches.begin(fused)
        if fused is not None and begun and batches.confirm(placed, begun, TOLERANCE[precision]):
            return _checked(batches.read(fused, features, begun), placed, last)
        with _shown(placed, last, features) as network:
            return _checked(batches.read(network, features), placed, last)


@dataclass(frozen=True, slots=True)
class _Batches:
    """Images in batches of one size, for which kernels are made once: the last begins in the one before it."""

    images: Tensor
    data: Dataset
    device: Device
    size: int

    def begin(self, twin: _Network) -> list[_Part] | None:
        """What a rewritten network says of the batches that hold the first images; None where it cannot take them.

        A layer of a user's own may take nothing but fp32, or contiguous maps, which the network as it is gives to it.
        That shows at once: a later batch has the same shape, and what fails there is told.
        """
        with suppress(RuntimeError):
            return [self._part(twin, start) for start in range(0, min(CONFIRMED, len(self.images)), self.size)]
        return None

    def read(self, network: _Network, features: bool, begun: Sequence[_Part] = ()) -> Reading:
        """What `network` says of each image; `begun` are the first batches, where they have been read."""
        starts = range(len(begun) * self.size, len(self.images), self.size)
        parts = [*begun, *(self._part(network, start) for start in starts)]
        logits, seen = (torch.cat(column) for column in zip(*parts, strict=True))
        return Reading(logits, seen if features else None)

    def confirm(self, model: nn.Module, begun: Sequence[_Part], tolerance: float) -> bool:
        """Whether `model` in fp32 gives the first logits of `begun`, up to a share of the largest of them.

        A graph may say something else than the code that it was taken from: an `x += y` that others see is lost in it.
        """
        logits = torch.cat([part for part, _ in begun])
        images = normalise(self.images[:CONFIRMED], self.data).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, enabled=False):
            expected = model(images).float()
        largest = float(expected.abs().nan_to_num(0).max())
        return torch.allclose(logits[:CONFIRMED], expected, rtol=0, atol=tolerance * largest, equal_nan=True)

    def _part(self, network: _Network, start: int) -> _Part:
        """Logits and features of the images from `start`, at most `size`."""
        first = max(0, min(start, len(self.images) - self.size))
        images = normalise(self.images[first : first + self.size].to(self.device), self.data)
        found = network(images.contiguous(memory_format=torch.channels_last))
        logits, seen = (part[start - first :].float().cpu() for part in found)
        return logits, seen


@contextmanager
def _shown(model: nn.Module, last: str, features: bool) -> Generator[_Network]:
    """`model`, and what its layer `last` reads; without features logits stand in their place."""
    seen: list[Tensor] = []

    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.extend(inputs[:1])

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.clear()
        logits: Tensor = model(images)
        if features and len(seen) != 1:
            raise _no_features(model, last)
        return logits, seen[0] if features else logits

    handle = model.get_submodule(last).register_forward_pre_hook(see, prepend=True)
    try:
        yield network
    finally:
        handle.remove()


def _checked(reading: Reading, model: nn.Module, last: str) -> Reading:
    """`reading`, unless its features are the inputs of a layer that gives something else than logits."""
    if reading.features is not None:
        outputs = model.get_submodule(last).get_parameter("weight").shape[0]
        if reading.features.dim() != 2 or (len(reading.features), outputs) != reading.logits.shape:
            raise _no_features(model, last)
    return reading


def _placed(model: nn.Module, device: Device) -> nn.Module:
    """`model` on `device`; a copy where it is elsewhere."""
    elsewhere = any(tensor.device.type != device for tensor in (*model.parameters(), *model.buffers()))
    return copy.deepcopy(model).to(device) if elsewhere else model


def shrink(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) at `size` x `size` pixels, as `trainables.data.load.resize` makes them up to rounding.

    Resizing is linear along each side: Y = round(A X B^T) with A (size, H) and B (size, W). Two products of matrices
    take about half of the time.
    """
    count, channels, height, width = images.shape
    if height == width == size:
        return images
    rows, columns = _weights(height, size), _weights(width, size).T.contiguous()
    small = images.new_empty(count, channels, size, size)
    for part, into in zip(images.split(SHRUNK_TOGETHER), small.split(SHRUNK_TOGETHER), strict=True):
        narrow = part.reshape(-1, width).float() @ columns
        into.copy_((rows @ narrow.view(*part.shape[:3], size)).round_().clamp_(0, 255))
    return small


def _weights(length: int, size: int) -> Tensor:
    """How much of each of `length` pixels is in each of `size`: bilinear with antialiasing, fp32 (size, length)."""
    units = torch.eye(length).view(1, length, length, 1).expand(1, length, length, 2)
    return F.interpolate(units, (size, 2), mode="bilinear", antialias=True)[0, :, :, 0].T.contiguous()


def _batch_size(model: nn.Module, images: Tensor, precision: Precision, device: Device) -> int:
    layer = model.get_submodule(first_layer(model))
    size = images[0].numel()
    if isinstance(layer, nn.Conv2d):
        size = layer.out_channels * images.shape[-2] * images.shape[-1] // (layer.stride[0] * layer.stride[1])
    most = max(1, BATCH_BYTES[device] // (size * (2 if precision == "bf16" else 4)))
    return math.ceil(len(images) / math.ceil(len(images) / most))  # as even as can be: what overlaps is read twice


def refuse_without_features(model: nn.Module) -> None:
    """Features are the inputs of a linear layer at the end.

    Raises:
        InfeasibleError: there is none.

    """
    last = last_layer(model)
    if not isinstance(model.get_submodule(last), nn.Linear):
        raise _no_features(model, last)


def _no_features(model: nn.Module, last: str) -> InfeasibleError:
    layer = type(model.get_submodule(last)).__name__
    return InfeasibleError(
        f"{type(model).__name__} has no linear layer at its end whose inputs are features (its last layer {last} is a "
        f"{layer}): choose a select.strategy that reads logits alone, such as least_confidence, margin or entropy, or "
        "a network that ends in a linear layer (model.name, or select.proxy)"
    )
