"""The packed file: what a device would store of a network, in one blob with a short manifest.

Its frame is in `trainables.export.manifest`. Numbers are little-endian. The blob holds, in module order, each
convolution's and linear layer's weights (codings: `trainables.export.coding`) and bias, if it has one; for a BN layer
fp32 scale and shift per channel, into which the statistics are folded; then in order of their names all other
parameters and buffers as fp32; then in module order the index of each layer that gathers channels, 1 to 3 bytes an
entry, and the value of each activation that has one, as fp64.
The scales of a convolution of few bits that only a BN reads are folded into that BN, so that 4 bytes a filter are
saved. Folding changes outputs by rounding alone; the classes predicted stay the same but for ties within that rounding.

Version 1 has no ternary and no two-valued layers, no activations and no other tensors, version 2 no edits, version 3
no gates, no layers on grids, no folded BN and no activations of 2 to 7 bits as whole steps; a network without them is
still written so.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import chain, starmap

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import TypeIs

from trainables.errors import InfeasibleError, PackedFileError
from trainables.export.coding import (
    BITS,
    CODES,
    Reader,
    Storage,
    code_bytes,
    encode,
    encode_codes,
    floats,
    group_bytes,
    index_bytes,
    stored_bytes,
)
from trainables.export.manifest import KINDS, Kind, Manifest, PackedHeader, framed, opened
from trainables.export.norms import fold_statistics, is_plain_norm, neutralise, take_scales
from trainables.export.skeleton import WithoutMemory, check_one_image
from trainables.models.build import build
from trainables.models.compact import Compact
from trainables.models.edits import Edits, install
from trainables.models.gather import Gather
from trainables.models.grids import Grid
from trainables.pruning.cut import resize
from trainables.quantize import Activation, install_activations

Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d
Named = list[tuple[str, Tensor]]


@torch.no_grad()
def pack(network: Compact, header: PackedHeader) -> bytes:
    """The packed file of a finished network.

    Raises:
        ValueError: a layer holds more values in a filter than its bits can tell apart.
        InfeasibleError: a tensor that belongs to no layer is not exact in fp32.

    """
    folded = copy.deepcopy(network.model).cpu()
    grids = network.grids
    scales = take_scales(folded, {name: bits for name, bits in network.bits.items() if name not in grids})
    layers = list(_layers(folded))
    coded = [_stored(layer, network.bits.get(name), scales.get(name), grids.get(name)) for name, layer in layers]
    others = _others(folded)
    active = [
        (place, network.activations[name]) for place, name in enumerate(_names(folded)) if name in network.activations
    ]
    manifest = Manifest(
        header=header,
        shapes=tuple(tuple(layer.weight.shape[:2]) for _, layer in layers),
        storage=tuple(kind for kind, _ in coded),
        input_bits=tuple(network.input_bits.get(name, 0) for name, _ in layers) if network.input_bits else (),
        activations=_by_kind(active),
        others=len(others),
        edits=network.edits,
        grids=tuple((len(grids[name].steps), group_bytes(grids[name])) for name, _ in layers if name in grids),
    )
    values = np.array([activation.value for _, activation in active if activation.kind != "sign"], "<f8")
    indices = (index_bytes(gather.get_buffer("index"), gather.index_bytes) for gather in _gathers(folded))
    parts = chain((data for _, data in coded), starmap(_exact, others), indices, [values.tobytes()])
    return framed(manifest, b"".join(parts))


@torch.no_grad()
def unpack(data: bytes, allow_code: bool = False) -> tuple[Compact, PackedHeader]:
    """The network of a packed file, in eval mode, and its header; `kept` is empty.

    Where the network is one of this project or of torchvision, no more memory is taken than 32 times the file's size
    and what one image needs. A network of the user's own is built by the user's code.

    Args:
        data: the file.
        allow_code: whether a model that is named as `package.module:function` may be imported and built.

    Raises:
        PackedFileError: not a packed file, of a later version, truncated or changed.
        CodeError: its network is a user's own code, and that is not allowed or not at hand as it was.

    """
    manifest, blob = opened(data)
    header = manifest.header
    model = _built(header, allow_code)
    _edit(model, manifest.edits)
    layers = list(_layers(model))
    if len(layers) != len(manifest.shapes):
        msg = f"the packed file lists {len(manifest.shapes)} layers; {header.model.name} has {len(layers)}"
        raise PackedFileError(msg)
    resize(model, _empty_tensors(layers, manifest.shapes))
    others, active = _others(model), _active(model, manifest)
    beside = sum(gather.index_bytes * gather.get_buffer("index").numel() for gather in _gathers(model))
    _check_length(len(blob), _needed(layers, manifest, others, active) + beside)
    reader, sizes, grids = Reader(blob), iter(manifest.grids), dict[str, Grid]()
    for (name, layer), kind in zip(layers, manifest.storage, strict=True):
        if kind in CODES:
            weight, grids[name] = reader.codes(kind, layer.weight.shape, *next(sizes))
        else:
            weight = reader.weight(kind, layer.weight.shape)
        _restore(layer, weight, reader)
    for name, tensor in others:
        _put(model, name, reader.floats(tensor.numel()).view(tensor.shape).to(tensor.dtype))
    for gather in _gathers(model):
        gather.register_buffer("index", _index(gather, reader))
    activations = {name: _activation(name, kind, reader) for name, kind in active}
    install_activations(model, activations)
    check_one_image(model.eval(), header.channels, header.image_size)
    bits = {name: BITS[kind] for (name, _), kind in zip(layers, manifest.storage, strict=True) if kind in BITS}
    inputs = {name: n for (name, _), n in zip(layers, manifest.input_bits, strict=False) if n}
    found = Compact(model, bits, activations=activations, input_bits=inputs, edits=manifest.edits, grids=grids)
    return found, header


def _built(header: PackedHeader, allow_code: bool) -> nn.Module:
    """The dense network; its weights have no memory unless the user's own code makes it."""
    own_code = header.model.code_sha256 is not None
    with nullcontext() if own_code else WithoutMemory():
        return build(header.model, header.channels, header.classes, allow_code=allow_code)


def _edit(model: nn.Module, edits: Edits) -> None:
    """Put the chains of layers in their places, without memory for weights.

    Raises:
        PackedFileError: they do not fit the network.

    """
    try:
        with WithoutMemory():
            install(model, edits)
    except ValueError as error:
        msg = f"the packed file's edits do not fit {type(model).__name__}: {error}"
        raise PackedFileError(msg) from error


def _layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """The layers whose weights have a coding; all else is among `_others`."""
    for name, module in model.named_modules():
        if _is_layer(module):
            yield name, module


def _is_layer(module: nn.Module) -> TypeIs[Layer]:
    """Whether it is of a coded kind and its weight is a parameter of its own, as a parametrized one is not."""
    weighted = isinstance(module, nn.Conv2d | nn.Linear) and "weight" in dict(module.named_parameters(recurse=False))
    return weighted or is_plain_norm(module)


def _others(model: nn.Module) -> Named:
    """The parameters and stored buffers that belong to no layer, in order of their names."""
    coded = {layer for _, layer in _layers(model)}
    stored = model.state_dict().keys()
    found: Named = []
    for prefix, module in model.named_modules():
        for name, tensor in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            path = f"{prefix}.{name}".lstrip(".")
            own = module in coded and (name in ("weight", "bias") or isinstance(module, nn.BatchNorm2d))
            if path in stored and not own and not isinstance(module, Gather):
                found.append((path, tensor))
    return sorted(found, key=lambda other: other[0])


def _gathers(model: nn.Module) -> list[Gather]:
    return [module for module in model.modules() if isinstance(module, Gather)]


def _index(gather: Gather, reader: Reader) -> Tensor:
    index = reader.index(gather.get_buffer("index").numel(), gather.index_bytes)
    if int(index.max()) >= gather.inputs:
        msg = f"the packed file gathers channel {int(index.max())} of {gather.inputs}"
        raise PackedFileError(msg)
    return index


def _names(model: nn.Module) -> list[str]:
    """Of all modules; one that stands in several places has several, as after its replacement by several."""
    return [name for name, _ in model.named_modules(remove_duplicate=False)]


def _by_kind(active: Sequence[tuple[int, Activation]]) -> dict[Kind, tuple[int, ...]]:
    places: dict[Kind, tuple[int, ...]] = {
        kind: tuple(place for place, found in active if found.kind == kind) for kind in KINDS
    }
    return {kind: found for kind, found in places.items() if found}


def _stored(layer: Layer, bits: int | None, scales: Tensor | None, grid: Grid | None) -> tuple[Storage, bytes]:
    """How a layer is stored, and its bytes."""
    if isinstance(layer, nn.BatchNorm2d):
        fold_statistics(layer)
    kind, weight = encode(layer.weight, bits, scales) if grid is None else encode_codes(layer.weight, grid)
    return kind, weight if (bias := _bias(layer)) is None else weight + floats(bias)


def _bias(layer: Layer) -> Tensor | None:
    return dict(layer.named_parameters(recurse=False)).get("bias")


def _exact(name: str, tensor: Tensor) -> bytes:
    stored = tensor.detach().float()
    if tensor.dtype != torch.float32 and not torch.equal(stored.to(tensor.dtype), tensor):
        msg = f"{name} holds {tensor.dtype} values that fp32 cannot, so that the network cannot be packed"
        raise InfeasibleError(msg)
    return floats(stored)


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


def _active(model: nn.Module, manifest: Manifest) -> list[tuple[str, Kind]]:
    """Name and kind of each quantized activation, in module order.

    Raises:
        PackedFileError: it would take the place of something that is no activation.

    """
    places: list[tuple[int, Kind]] = [(place, kind) for kind, found in manifest.activations.items() for place in found]
    names = _names(model)
    found: list[tuple[str, Kind]] = []
    for place, kind in sorted(places):
        name = names[place] if 0 < place < len(names) else ""
        module = model.get_submodule(name)
        if module is model or any(True for _ in chain(module.children(), module.parameters(), module.buffers())):
            msg = (
                f"the packed file puts an activation of kind {kind} in place {place} ({name!r}), which is no activation"
            )
            raise PackedFileError(msg)
        found.append((name, kind))
    return found


def _needed(
    layers: Sequence[tuple[str, Layer]], manifest: Manifest, others: Named, active: Sequence[tuple[str, Kind]]
) -> int:
    """Bytes that the blob must have.

    Raises:
        PackedFileError: the file has another number of tensors that belong to no layer.

    """
    if len(others) != manifest.others:
        name = manifest.header.model.name
        msg = f"the packed file has {manifest.others} tensors beside its layers; {name} has {len(others)}"
        raise PackedFileError(msg)
    stored, numbers = 0, sum(tensor.numel() for _, tensor in others) + 2 * sum(kind != "sign" for _, kind in active)
    for _, layer in layers:
        numbers += 0 if (bias := _bias(layer)) is None else bias.numel()
    sizes = iter(manifest.grids)
    for (_, layer), kind in zip(layers, manifest.storage, strict=True):
        weights, filters = layer.weight.numel(), layer.weight.shape[0]
        coded = kind in CODES
        stored += code_bytes(kind, weights, filters, *next(sizes)) if coded else stored_bytes(kind, weights, filters)
    return 4 * numbers + stored


def _check_length(held: int, needed: int) -> None:
    if held < needed:
        msg = f"the packed file ends after {held} bytes of weights; {needed} are needed"
        raise PackedFileError(msg)
    if held > needed:
        msg = f"the packed file holds {held} bytes of weights; its manifest accounts for {needed}"
        raise PackedFileError(msg)


def _restore(layer: Layer, weight: Tensor, reader: Reader) -> None:
    """Give a layer its weight, and its bias from the blob."""
    layer.weight = nn.Parameter(weight)
    if (bias := _bias(layer)) is not None:
        layer.bias = nn.Parameter(reader.floats(bias.numel()))
    if isinstance(layer, nn.BatchNorm2d):
        neutralise(layer)


def _put(model: nn.Module, path: str, tensor: Tensor) -> None:
    """Set a parameter or buffer of `model` by its name."""
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    setattr(module, name, nn.Parameter(tensor) if name in dict(module.named_parameters(recurse=False)) else tensor)


def _activation(name: str, kind: Kind, reader: Reader) -> Activation:
    value = 0.0 if kind == "sign" else reader.double()
    if not 0 <= value < torch.inf:
        msg = f"the packed file gives activation {name} the value {value}; it is finite and at least 0"
        raise PackedFileError(msg)
    return Activation(kind, value)
