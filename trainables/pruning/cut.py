"""Physical removal of channels, by a plan: for each group a boolean tensor, True where a channel stays."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainables.pruning.groups import ChannelGroup, Member, is_depthwise

Plan = Sequence[tuple[ChannelGroup, Tensor]]


@torch.no_grad()
def cut_channels(model: nn.Module, plan: Plan) -> None:
    """Remove channels from the layers that produce, normalise and read them, in place.

    Weights and statistics become smaller tensors (new parameters); channel counts of the layers follow.
    """
    outputs = _kept_places(model, plan, {"producers": 0, "norms": 0})
    inputs = _kept_places(model, plan, {"consumers": 1})
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _cut_weights(layer, outputs.get(name), inputs.get(name))
        elif isinstance(layer, nn.BatchNorm2d) and name in outputs:
            _cut_norm(layer, outputs[name])


def _kept_places(model: nn.Module, plan: Plan, axes: Mapping[str, int]) -> dict[str, Tensor]:
    """Indices that stay along an axis of each layer's weight; several groups may share a layer."""
    gone: defaultdict[str, list[Tensor]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for group, stays in plan:
        for kind, axis in axes.items():
            members: tuple[Member, ...] = getattr(group, kind)
            for member in members:
                gone[member.name].append(member.places(~stays))
                sizes[member.name] = model.get_submodule(member.name).get_parameter("weight").shape[axis]
    kept: dict[str, Tensor] = {}
    for name, places in gone.items():
        stays = torch.ones(sizes[name], dtype=torch.bool)
        stays[torch.cat(places)] = False
        kept[name] = stays.nonzero().flatten()
    return kept


def _cut_weights(layer: nn.Conv2d | nn.Linear, outputs: Tensor | None, inputs: Tensor | None) -> None:
    if outputs is not None:
        for name, parameter in list(layer.named_parameters(recurse=False)):
            layer.register_parameter(name, _selected(parameter, 0, outputs))
    if inputs is not None:
        layer.weight = _selected(layer.weight, 1, inputs)
    adopt_shape(layer)


def _cut_norm(norm: nn.BatchNorm2d, channels: Tensor) -> None:
    norm.weight = _selected(norm.weight, 0, channels)
    norm.bias = _selected(norm.bias, 0, channels)
    for statistic in ("running_mean", "running_var"):
        values = norm.get_buffer(statistic)
        norm.register_buffer(statistic, values.index_select(0, channels.to(values.device)))
    adopt_shape(norm)


def _selected(parameter: Tensor, axis: int, places: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.index_select(axis, places.to(parameter.device)))


def adopt_shape(layer: nn.Conv2d | nn.Linear | nn.BatchNorm2d) -> None:
    """Make a layer's channel counts say what its weight's shape says."""
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = layer.weight.shape[0]
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    else:
        layer.groups = layer.weight.shape[0] if is_depthwise(layer) else layer.groups
        layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups


def resize(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give each convolution, BN and linear layer of a fresh `model` the shapes that `tensors` have, in place.

    The weights are left unset; `load_state_dict(tensors)` sets them. Layers that `tensors` lack stay as they are.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            continue
        for kind, current in list(layer.named_parameters(recurse=False)):
            stored = tensors.get(f"{name}.{kind}", current)
            if stored.shape != current.shape:
                layer.register_parameter(kind, nn.Parameter(current.new_empty(stored.shape)))
        for kind, current in list(layer.named_buffers(recurse=False)):
            stored = tensors.get(f"{name}.{kind}", current)
            if stored.shape != current.shape:
                layer.register_buffer(kind, current.new_empty(stored.shape))
        adopt_shape(layer)
