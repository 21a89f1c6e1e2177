"""Channel groups: which output channels of which layers can only be removed together.

The coupling is read off torch-pruning's dependency graph (Fang et al., DepGraph, CVPR 2023) of one traced image.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch_pruning
import torch_pruning.ops
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.models.modes import modes_kept
from trainables.pruning.rearranging import rearranging
from trainables.pruning.sharing import refuse_shared

Scope = Literal["inner", "all"]

# What may stand in a prunable group; a layer of another kind with weights of its own cannot be cut.
Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d


@dataclass(frozen=True, slots=True)
class Member:
    """A layer and the places of a group's channels in it.

    `index` holds `columns` places per channel, channel after channel; more than one where maps are flattened into
    a linear layer. Places are filters of a producer, channels of a norm, inputs of a consumer.
    """

    name: str
    index: tuple[int, ...]
    columns: int

    def places(self, channels: Tensor) -> Tensor:
        """The places of the given channels (a tensor of indices or a boolean mask over the group), flat."""
        return torch.tensor(self.index).view(-1, self.columns)[channels].flatten()


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Coupled channels: channel c of every member stays or goes with channel c of the others.

    Attributes:
        name: of the first producer in module order.
        channels: how many.
        producers: layers whose output filters they are; a depthwise convolution counts as one.
        norms: BN layers that they pass through.
        consumers: layers that read them.
        inner: one producer that is not depthwise, so that no sum (or product) of two layers is touched.

    """

    name: str
    channels: int
    producers: tuple[Member, ...]
    norms: tuple[Member, ...]
    consumers: tuple[Member, ...]
    inner: bool


def is_depthwise(module: nn.Module) -> bool:
    """Whether each filter of a convolution reads one channel alone."""
    return isinstance(module, nn.Conv2d) and module.groups > 1 and module.groups == module.out_channels


def channel_groups(model: nn.Module, example: Tensor, scope: Scope) -> tuple[ChannelGroup, ...]:
    """The prunable groups of `model` in module order; `example` is one image, shape (1, C, H, W).

    Channels of the network's input and output are never prunable. `inner` leaves out what a sum ties together.
    The model's weights, BN statistics and training mode are as before.

    Raises:
        InfeasibleError: a group in scope holds a layer that cannot be cut or has shared weights, none is in scope, or
            the network cannot be traced.

    """
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    found = [_read(items, order) for items in _traced(model, example)]
    chosen = [group for group in found if group is not None and (scope == "all" or group.inner)]
    if not chosen:
        msg = f"{type(model).__name__} has no channels to prune in scope {scope}; use scope all, or pfr 0"
        raise InfeasibleError(msg)
    modules = dict(model.named_modules())
    for group in chosen:
        _refuse_unsupported(group, modules)
    refuse_shared(model, example, {member.name for group in chosen for member in _members(group)})
    return tuple(sorted(chosen, key=lambda group: order[group.name]))


def _traced(model: nn.Module, example: Tensor) -> list[list[Any]]:
    """All groups of torch-pruning's graph, as lists of its items."""
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad(), warnings.catch_warnings(), modes_kept(model):
            # where it gives up on a depth, it would go on for hours or forget channels
            warnings.filterwarnings("error", message="Maximum recursive depth")
            # a tuple: given a bare tensor, the tracer first tries it without its batch axis and counts layers twice
            graph.build_dependency(model, (example,), verbose=False)
            return [[group[place] for place in range(len(group))] for group in graph.get_all_groups()]
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # it has no errors of its own: whatever breaks in it, it cannot follow the network
        told = rearranging(model, example) or f"torch-pruning gave up with {str(error) or type(error).__name__!r}"
        msg = f"the channels of {type(model).__name__} cannot be followed, so that none can be pruned: {told}"
        raise InfeasibleError(msg) from error


def _read(items: Sequence[Any], order: dict[str, int]) -> ChannelGroup | None:
    """A group of ours from torch-pruning's items; None where the channels are the network's output.

    The items' `root_idxs` say which channel of the first item each index belongs to.
    """
    channels = len(items[0].idxs)
    kinds: dict[str, dict[str, Member]] = {"producers": {}, "norms": {}, "consumers": {}}
    for item in items:
        module = item.dep.target.module
        if isinstance(module, torch_pruning.ops._OutputOp):  # pyright: ignore[reportPrivateUsage]
            return None
        name = _layer_name(item)
        if name not in order:
            continue
        reads = item.dep.handler.__name__ == "prune_in_channels" and isinstance(module, nn.Conv2d | nn.Linear)
        kind = "consumers" if reads and not is_depthwise(module) else "producers"
        kind = "norms" if isinstance(module, nn.BatchNorm2d) else kind
        kinds[kind][name] = _member(name, item, channels)
    if not kinds["consumers"]:
        return None
    members = {kind: tuple(sorted(found.values(), key=lambda m: order[m.name])) for kind, found in kinds.items()}
    return ChannelGroup(members["producers"][0].name, channels, inner=len(members["producers"]) == 1, **members)


def _layer_name(item: Any) -> str:
    """The module name of an item: torch-pruning adds the layer's text in brackets."""
    return str(item.dep.target.name).split(" (", 1)[0]


def _member(name: str, item: Any, channels: int) -> Member:
    places: list[list[int]] = [[] for _ in range(channels)]
    for place, channel in zip(item.idxs, item.root_idxs, strict=True):
        places[channel].append(place)
    columns = len(places[0])
    if columns == 0 or any(len(of_one) != columns for of_one in places):
        msg = f"layer {name} does not hold every channel of its group equally often; scope inner may leave it out"
        raise InfeasibleError(msg)
    return Member(name, tuple(place for of_one in places for place in of_one), columns)


def _refuse_unsupported(group: ChannelGroup, modules: dict[str, nn.Module]) -> None:
    for member in _members(group):
        module = modules[member.name]
        if not isinstance(module, Layer):
            msg = f"layer {member.name} ({type(module).__name__}) cannot be cut; Conv2d, Linear and BatchNorm2d can"
            raise InfeasibleError(msg)
        if isinstance(module, nn.Conv2d) and module.groups > 1 and not is_depthwise(module):
            msg = f"layer {member.name} has {module.groups} groups; only ungrouped and depthwise ones can be cut"
            raise InfeasibleError(msg)


def _members(group: ChannelGroup) -> Iterable[Member]:
    return (*group.producers, *group.norms, *group.consumers)
