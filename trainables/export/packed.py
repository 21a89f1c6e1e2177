"""The packed file: what a device would store of a network, in one blob with a short manifest.

    magic (4) | version (2) | manifest length (4) | manifest, deflated JSON | blob | BLAKE2b-64 of all before (8)

Numbers are little-endian. The blob holds, in module order: for a 1-bit layer the signs (1 bit a weight, +1 is 1, each
layer filled up to a byte) and its scales (fp32: one per filter, one, or none), for any other layer fp32 weights; then
its bias, if it has one; for a BN layer fp32 scale and shift per channel, into which the statistics are folded.
The scales of a 1-bit convolution that only a BN reads are folded into that BN, so that 4 bytes a filter are saved.
Folding changes outputs by rounding alone; the classes predicted stay the same but for ties within that rounding.
"""

import copy
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal, Self

import numpy as np
import torch
import torch.fx
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from trainables.config import ModelConfig, Section
from trainables.errors import PackedFileError
from trainables.export.compact import resize
from trainables.models.build import build

MAGIC = b"PKNN"
VERSION = 1
_PREFIX = struct.Struct("<4sHI")
_DIGEST_BYTES = 8
_MANIFEST_LIMIT = 1 << 20

Storage = Literal["fp32", "signs", "layer", "filter"]
Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d


class PackedHeader(Section):
    """What is needed to rebuild the network and to feed it: pixels in [0, 1] are normalised as (x - mean) / std."""

    model: ModelConfig
    channels: int = Field(ge=1, le=64)
    classes: int = Field(ge=1, le=100_000)
    image_size: int = Field(ge=1, le=4096)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.model.width is None or not len(self.mean) == len(self.std) == self.channels:
            msg = f"model.width is {self.model.width}, and {self.channels} channels need as many means and deviations"
            raise ValueError(msg)
        return self


class _Manifest(Section):
    """The header, the shape of each layer's weight, and how it is stored."""

    header: PackedHeader
    shapes: tuple[tuple[int, ...], ...]
    storage: tuple[Storage, ...]


@torch.no_grad()
def pack(model: nn.Module, bits: Mapping[str, int], header: PackedHeader) -> bytes:
    """The packed file of a finished network; layers named in `bits` are stored with 1 bit a weight.

    Raises:
        ValueError: `bits` asks for other than 1 bit, or a 1-bit layer holds other values than +-a_o in filter o.

    """
    folded = copy.deepcopy(model).cpu()
    signs = _take_scales(folded, bits)
    storage: list[Storage] = []
    blob = bytearray()
    for name, layer in _layers(folded):
        kind, data = _stored(layer, signs.get(name))
        storage.append(kind)
        blob += data
    shapes = tuple(tuple(layer.weight.shape[:2]) for _, layer in _layers(folded))
    manifest = _Manifest(header=header, shapes=shapes, storage=tuple(storage))
    text = json.dumps(manifest.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
    packed = zlib.compress(text.encode(), 9)
    body = _PREFIX.pack(MAGIC, VERSION, len(packed)) + packed + bytes(blob)
    return body + _digest(body)


@torch.no_grad()
def unpack(data: bytes) -> tuple[nn.Module, PackedHeader]:
    """The network of a packed file, in eval mode, made of plain torch layers, and its header.

    Raises:
        PackedFileError: not a packed file, of a later version, truncated or changed.

    """
    manifest, blob = _opened(data)
    header = manifest.header
    model = build(header.model, header.channels, header.classes)
    layers = list(_layers(model))
    if not len(layers) == len(manifest.shapes) == len(manifest.storage):
        msg = f"the packed file lists {len(manifest.shapes)} layers; {header.model.name} has {len(layers)}"
        raise PackedFileError(msg)
    resize(model, _empty_tensors(layers, manifest.shapes))
    reader = _Reader(blob)
    for (_, layer), kind in zip(layers, manifest.storage, strict=True):
        _restore(layer, kind, reader)
    reader.finish()
    return _checked(model.eval(), header), header


def _layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Layer))


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


def _take_scales(model: nn.Module, bits: Mapping[str, int]) -> dict[str, Tensor]:
    """Scale per filter of each 1-bit layer, shape (O,); those that a BN can take are moved there and become 1."""
    norms = _norms_behind(model)
    scales: dict[str, Tensor] = {}
    for name, stored in bits.items():
        layer = model.get_submodule(name)
        scale = _filter_scales(name, layer.get_parameter("weight"), stored)
        norm = norms.get(name)
        if norm is not None:
            _fold_statistics(norm)
            norm.weight.mul_(scale)
            scale = torch.ones_like(scale)
        scales[name] = scale
    return scales


def _filter_scales(name: str, weight: Tensor, bits: int) -> Tensor:
    magnitude = weight.abs().flatten(1)
    if bits != 1 or not bool((magnitude == magnitude[:, :1]).all()):
        msg = f"layer {name} cannot be stored with {bits} bit a weight: it holds more than two values in a filter"
        raise ValueError(msg)
    return magnitude[:, 0]


def _norms_behind(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """The BN of each bias-free convolution whose output nothing else reads."""
    found: dict[str, nn.BatchNorm2d] = {}
    for node in torch.fx.symbolic_trace(model).graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        (user,) = node.users
        layer = model.get_submodule(str(node.target))
        reader = model.get_submodule(str(user.target)) if user.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and layer.bias is None and isinstance(reader, nn.BatchNorm2d):
            found[str(node.target)] = reader
    return found


def _fold_statistics(norm: nn.BatchNorm2d) -> None:
    """Make a BN's scale and shift say all it does: scale' = g / sqrt(var + eps), shift' = b - mean * scale'."""
    mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    norm.bias.copy_(norm.bias.double() - mean * scale)
    norm.weight.copy_(scale)
    _neutralise(norm)


def _neutralise(norm: nn.BatchNorm2d) -> None:
    """Statistics under which a BN in eval mode computes scale * x + shift."""
    norm.get_buffer("running_mean").zero_()
    norm.get_buffer("running_var").fill_(1 - norm.eps)
    norm.get_buffer("num_batches_tracked").zero_()


def _stored(layer: Layer, scales: Tensor | None) -> tuple[Storage, bytes]:
    """How a layer is stored, and its bytes."""
    if isinstance(layer, nn.BatchNorm2d):
        _fold_statistics(layer)
    bias = b"" if (found := _bias(layer)) is None else _floats(found)
    if scales is None:
        return "fp32", _floats(layer.weight) + bias
    signs = np.packbits((layer.weight >= 0).numpy().ravel()).tobytes()
    if bool((scales == 1).all()):
        return "signs", signs + bias
    if bool((scales == scales[0]).all()):
        return "layer", signs + _floats(scales[:1]) + bias
    return "filter", signs + _floats(scales) + bias


def _bias(layer: Layer) -> Tensor | None:
    return dict(layer.named_parameters(recurse=False)).get("bias")


def _floats(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().astype("<f4").tobytes()


def _opened(data: bytes) -> tuple[_Manifest, bytes]:
    """The manifest and the blob of a file whose checksum is right."""
    if len(data) < _PREFIX.size + _DIGEST_BYTES or data[:4] != MAGIC:
        msg = f"not a packed file: {len(data)} bytes that begin with {data[:4]!r}, not {MAGIC!r}"
        raise PackedFileError(msg)
    _, version, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        msg = f"the packed file has version {version}; this release reads version {VERSION}"
        raise PackedFileError(msg)
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if _digest(body) != digest:
        msg = "the packed file is truncated or was changed: its checksum does not match; export it again"
        raise PackedFileError(msg)
    start = _PREFIX.size + length
    try:
        text = zlib.decompressobj().decompress(body[_PREFIX.size : start], _MANIFEST_LIMIT)
        return _Manifest.model_validate_json(text), body[start:]
    except (zlib.error, ValidationError) as error:
        msg = f"the manifest of the packed file cannot be read: {error}"
        raise PackedFileError(msg) from error


def _empty_tensors(layers: list[tuple[str, Layer]], shapes: tuple[tuple[int, ...], ...]) -> dict[str, Tensor]:
    """Tensors without memory in the stored shapes, under their names in a state dict.

    Raises:
        PackedFileError: a shape is none that the dense layer can be cut to.

    """
    tensors: dict[str, Tensor] = {}
    for (name, layer), shape in zip(layers, shapes, strict=True):
        whole = tuple(layer.weight.shape)
        fits = len(shape) == len(whole[:2]) and all(1 <= n <= limit for n, limit in zip(shape, whole, strict=False))
        if not fits:
            msg = f"the packed file gives layer {name} the channels {list(shape)}, of at most {list(whole[:2])}"
            raise PackedFileError(msg)
        tensors[f"{name}.weight"] = torch.empty((*shape, *whole[2:]), device="meta")
        for kind in ("bias", "running_mean", "running_var"):
            tensors[f"{name}.{kind}"] = torch.empty(shape[:1], device="meta")
    return tensors


def _restore(layer: Layer, kind: Storage, reader: "_Reader") -> None:
    """Fill a layer of the right shape from the blob."""
    weight = layer.weight
    if kind == "fp32":
        weight.copy_(reader.floats(weight.numel()).view_as(weight))
    else:
        filters = weight.shape[0]
        signs = reader.signs(weight.numel()).view(filters, -1)
        scales = torch.ones(1) if kind == "signs" else reader.floats(1 if kind == "layer" else filters)
        weight.copy_((signs * scales.view(-1, 1)).view_as(weight))
    bias = _bias(layer)
    if bias is not None:
        bias.copy_(reader.floats(bias.numel()))
    if isinstance(layer, nn.BatchNorm2d):
        _neutralise(layer)


class _Reader:
    """Takes numbers off the front of a blob.

    Raises:
        PackedFileError: the blob is shorter, or in the end longer, than the manifest says.

    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.place = 0

    def _take(self, count: int) -> bytearray:
        taken = bytearray(self.blob[self.place : self.place + count])
        self.place += count
        if len(taken) < count:
            msg = f"the packed file ends after {len(self.blob)} bytes of weights; at least {self.place} are needed"
            raise PackedFileError(msg)
        return taken

    def floats(self, count: int) -> Tensor:
        """Fp32 numbers, shape (count,)."""
        return torch.from_numpy(np.frombuffer(self._take(4 * count), "<f4").astype(np.float32))

    def signs(self, count: int) -> Tensor:
        """Numbers +1 and -1, shape (count,)."""
        packed = np.frombuffer(self._take((count + 7) // 8), np.uint8)
        return torch.from_numpy(np.unpackbits(packed, count=count).astype(np.float32) * 2 - 1)

    def finish(self) -> None:
        """Make sure that nothing is left."""
        if self.place != len(self.blob):
            msg = f"the packed file holds {len(self.blob)} bytes of weights; its manifest accounts for {self.place}"
            raise PackedFileError(msg)


def _checked(model: nn.Module, header: PackedHeader) -> nn.Module:
    """`model`, if its layers fit one another."""
    try:
        model(torch.zeros(1, header.channels, header.image_size, header.image_size))
    except RuntimeError as error:
        msg = f"the layers of the packed file do not fit one another: {error}"
        raise PackedFileError(msg) from error
    return model
