"""What compression changes in a network's structure, as data: a file that lists it can be rebuilt without any code.

An edit puts a short chain of layers in the place of one convolution, linear layer or BN. `Compact.edits` lists them
in the order in which they were made; a later one may replace a part of an earlier one, `conv1.0`. Whoever rebuilds a
network applies them to the dense one, then gives the layers the shapes and weights of the file.
"""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, TypeAdapter, model_validator
from torch import nn

from trainables.config import Section
from trainables.models.gated import GatedConv2d
from trainables.models.gather import Gather
from trainables.quantize import replace_module

MOST_EDITS = 4096
MOST_NORM_CHANNELS = 1 << 22
"""Of the BN layers of all edits together: their statistics take memory before a file is known to be as long."""

Channels = Annotated[int, Field(ge=1, le=1 << 24)]
Size = Annotated[int, Field(ge=1, le=64)]
Pair = tuple[Size, Size]


class ConvPart(Section):
    """A convolution; pairs are (vertical, horizontal). Its output has at most the input's size."""

    kind: Literal["conv"] = "conv"
    inputs: Channels
    outputs: Channels
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Annotated[int, Field(ge=0, le=64)], Annotated[int, Field(ge=0, le=64)]] = (0, 0)
    dilation: Pair = (1, 1)
    groups: Channels = 1
    bias: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.inputs % self.groups or self.outputs % self.groups:
            msg = f"{self.groups} groups do not divide {self.inputs} inputs and {self.outputs} outputs"
            raise ValueError(msg)
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        if any(2 * padding > span for padding, span in zip(self.padding, spans, strict=True)):
            msg = f"padding {self.padding} of a kernel {self.kernel} would make the image larger"
            raise ValueError(msg)
        return self

    def layer(self) -> nn.Conv2d:
        """The layer; its weights are not set."""
        return nn.Conv2d(
            self.inputs, self.outputs, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.bias
        )


class LinearPart(Section):
    """A linear layer."""

    kind: Literal["linear"] = "linear"
    inputs: Channels
    outputs: Channels
    bias: bool = False

    def layer(self) -> nn.Module:
        """The layer; its weights are not set."""
        return nn.Linear(self.inputs, self.outputs, self.bias)


class NormPart(Section):
    """A BN."""

    kind: Literal["norm"] = "norm"
    channels: Channels

    def layer(self) -> nn.Module:
        """The layer, with scale 1, shift 0 and fresh statistics."""
        return nn.BatchNorm2d(self.channels)


class ReluPart(Section):
    """A ReLU."""

    kind: Literal["relu"] = "relu"

    def layer(self) -> nn.Module:
        """The layer."""
        return nn.ReLU()


class GatherPart(Section):
    """Channels chosen, in the order of an index that the file holds; `features` of (N, I) become (N, places, 1, 1)."""

    kind: Literal["gather"] = "gather"
    inputs: Channels
    places: Channels
    of: Literal["channels", "features"] = "channels"

    def layer(self) -> Gather:
        """The layer; its index is not set."""
        return Gather(self.inputs, self.places, features=self.of == "features")


class FlattenPart(Section):
    """(N, C, 1, 1) as (N, C)."""

    kind: Literal["flatten"] = "flatten"

    def layer(self) -> nn.Module:
        """The layer."""
        return nn.Flatten()


class GatedConvPart(Section):
    """A convolution of one group with a gate that switches its kernels, image by image."""

    kind: Literal["gated_conv"] = "gated_conv"
    conv: ConvPart

    @model_validator(mode="after")
    def _of_one_group(self) -> Self:
        if self.conv.groups > 1:
            msg = f"a gated convolution has {self.conv.groups} groups; it has one"
            raise ValueError(msg)
        return self

    def layer(self) -> GatedConv2d:
        """The layer; its weights are not set."""
        return GatedConv2d(self.conv.layer(), nn.Linear(self.conv.inputs, self.conv.outputs))


class IdentityPart(Section):
    """Nothing: what stood there has become part of another layer."""

    kind: Literal["identity"] = "identity"

    def layer(self) -> nn.Module:
        """The identity."""
        return nn.Identity()


Part = Annotated[
    ConvPart | LinearPart | NormPart | ReluPart | GatherPart | FlattenPart | GatedConvPart | IdentityPart,
    Field(discriminator="kind"),
]


class Edit(Section):
    """The chain `parts` in place of the layer `place`; part i becomes the module `place.i`."""

    place: Annotated[str, Field(min_length=1, max_length=500)]
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=8)]

    def module(self) -> nn.Sequential:
        """The chain; the weights of its convolutions and linear layers are NaN until they are set."""
        with torch.random.fork_rng(devices=[]):
            chain = nn.Sequential(*(part.layer() for part in self.parts))
        for layer in chain.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                for parameter in layer.parameters():
                    nn.init.constant_(parameter, math.nan)
        return chain


Edits = tuple[Edit, ...]
GATES: frozenset[str] = frozenset({"gated_conv", "identity"})
"""Kinds of parts that came with version 4 of the packed file."""

_EDITS: TypeAdapter[Edits] = TypeAdapter(Annotated[Edits, Field(max_length=MOST_EDITS)])


def dumped(edits: Edits) -> list[Any]:
    """As plain data for JSON, defaults left out."""
    return [
        {"place": edit.place, "parts": [{"kind": p.kind} | p.model_dump(exclude_defaults=True) for p in edit.parts]}
        for edit in edits
    ]


def parsed(text: str | bytes) -> Edits:
    """The edits of a JSON text.

    Raises:
        pydantic.ValidationError: it holds something else.

    """
    return _EDITS.validate_json(text)


def install(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Make the edits in `model`, in order and in place; weights of new layers are not set.

    Raises:
        ValueError: a place holds no convolution, linear layer or BN, or the BN layers are too large together.

    """
    allowed = MOST_NORM_CHANNELS
    for edit in edits:
        allowed -= sum(part.channels for part in edit.parts if isinstance(part, NormPart))
        if allowed < 0:
            msg = f"the BN layers of the edits have more than {MOST_NORM_CHANNELS} channels"
            raise ValueError(msg)
        if type(_module(model, edit.place)) not in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
            msg = f"an edit replaces {edit.place!r}, which is no convolution, linear layer or BN"
            raise ValueError(msg)
        replace_module(model, edit.place, edit.module())


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def conv_part(conv: nn.Conv2d, **changes: Any) -> ConvPart:
    """A convolution as data, some of its fields replaced.

    Raises:
        ValueError: it cannot be described: its padding is no number, is not of zeros, or makes the image larger.

    """
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        msg = f"padding {conv.padding!r} of mode {conv.padding_mode}"
        raise ValueError(msg)
    numbers: dict[str, Any] = {
        "inputs": conv.in_channels, "outputs": conv.out_channels, "kernel": conv.kernel_size, "stride": conv.stride,
        "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups, "bias": conv.bias is not None,
    }  # fmt: skip
    return ConvPart(**numbers | changes)


def origins(dense: Iterable[str], layers: Iterable[str]) -> dict[str, str]:
    """For each of `layers` the dense layer in whose place it stands: itself, or the one that an edit replaced."""
    known = frozenset(dense)
    found: dict[str, str] = {}
    for name in layers:
        place = name
        while place and place not in known:
            place = place.rpartition(".")[0]
        if place:
            found[name] = place
    return found
