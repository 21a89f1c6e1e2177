"""Parsimonious inference: small gates that say for each image which kernels of a layer are computed."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import Node

from trainables.errors import InfeasibleError
from trainables.method_config import LkamConfig
from trainables.methods.base import Method
from trainables.methods.layers import picked_outside
from trainables.models.compact import Compact
from trainables.models.edits import Edit, GatedConvPart, IdentityPart, conv_part, install
from trainables.models.folding import folded, pairs
from trainables.models.gated import GatedConv2d
from trainables.models.graph import graph, layer_of
from trainables.models.readers import read_by
from trainables.pruning.cut import cut_channels
from trainables.pruning.filters import counts
from trainables.pruning.groups import ChannelGroup, Member, channel_groups
from trainables.quantize import replace_module
from trainables.training.randomness import generator

OPEN_AT_FIRST = 2.0
"""Mean of a_o before training, of deviation 1: a kernel is on for 98 % of the images."""


class Lkam(Method):
    """y_o = h_o(x) BN(W_o * x), h_o(x) = 1[sigmoid(a_o(x)) >= threshold], a(x) = BN'(V mean(x)), mean over the pixels.

    A gate stands beside a convolution and reads what the convolution reads: V is (O, I); as a 1 x 1 convolution and a
    mean over the image may change places, it costs O I multiply-accumulates an image. A kernel that is off is not
    computed for that image. Behind its BN it leaves 0, so that who reads the channel need not read it either; therefore
    gates stand where one convolution alone makes a channel and convolutions and linear layers alone read it, behind
    what gives 0 for 0. BN' normalises each a_o over images: a gate that says the same for all of them, the way in which
    gates without it end, saves nothing that pruning would not.

    loss = task + gain / 2 sum over gated layers of max(0, s - active_share), s = mean over kernels and images of h:
    with active_share 0 the source's gain / (2 m) sum_o h_o. Gradients go straight through the step: dh/da =
    sigmoid'(a). In the first `soft_share` of the epochs the kernels are multiplied by sigmoid(a) instead of h, while
    the loss counts h. In eval mode gates are always hard. They begin with V drawn (variance 1 / I) and open: BN' has
    scale 1 and shift 2.

    After the last epoch kernels that were on for at most `removal_share` of its training images stay off, and at the
    end they are cut out with the inputs that read them, which changes no output: `pfr_achieved` is their share. BN is
    folded into W, BN' and the threshold into V; what is stored are (W, b, V, c) of each gated layer.

    Reference: Theodorakopoulos, Pothos, Kastaniotis and Fragoulis, "Parsimonious Inference on Convolutional Neural
    Networks: Learning and Applying On-line Kernel Activation Rules", arXiv 1701.05221, read as its patent claims tell
    it: a module between two layers of convolution, pooling, sigmoid and threshold, the loss, an outer budget. Inferred
    are the gradient, the schedule, BN', the place behind BN, how the share acts and what is removed. It is patented:
    for research.
    """

    def __init__(self, config: LkamConfig) -> None:
        self.config = config
        self._groups: tuple[ChannelGroup, ...] = ()
        self._norms: dict[str, str] = {}

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Put a gate beside each convolution that makes the channels of a group alone.

        Raises:
            InfeasibleError: there is none outside of `keep`; the first that might have been is named.

        """
        outputs = _outputs(model)
        layers = picked_outside(model, self.config.keep, _convolution, "convolution, whose kernels gates could switch,")
        reasons = {name: _reason(model, name, outputs) for name in layers}
        if all(reasons.values()):
            name, reason = next(iter(reasons.items()))
            told = f"has no kernels that gates can switch; layer {name}, for one, cannot have a gate: {reason}"
            raise InfeasibleError(f"{type(model).__name__} {told}")
        groups = channel_groups(model, example, "inner")
        self._groups = tuple(group for group in groups if reasons.get(group.name) == "")
        self._norms = {group.name: str(outputs[group.name].target) for group in self._groups if group.norms}
        source = generator(self.seed, "method")
        for group in self._groups:
            self._gate(model, group.name, source)

    def _gate(self, model: nn.Module, name: str, source: torch.Generator) -> None:
        conv = cast("nn.Conv2d", model.get_submodule(name))
        norm: nn.Module = nn.Identity()
        if name in self._norms:
            norm = model.get_submodule(self._norms[name])
            replace_module(model, self._norms[name], nn.Identity())
        gate = LearnedGate(conv, norm, self.config.threshold)
        gate.draw(source)
        replace_module(model, name, gate)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Make gates hard when their time has come; count anew how often kernels are on."""
        for gate in self._gates(model).values():
            gate.hard = epoch >= self._hard_from(epochs)
            gate.get_buffer("on").zero_()
            gate.get_buffer("seen").zero_()

    def _hard_from(self, epochs: int) -> int:
        return math.ceil(self.config.soft_share * epochs - 1e-9)

    def _gates(self, model: nn.Module) -> dict[str, "LearnedGate"]:
        return {group.name: cast("LearnedGate", model.get_submodule(group.name)) for group in self._groups}

    def loss(self, model: nn.Module, images: Tensor, logits: Tensor, task: Tensor) -> Tensor:
        """The task's loss and what open kernels cost."""
        shares = torch.stack([gate.take_opening().mean() for gate in self._gates(model).values()])
        return task + self.config.gain / 2 * (shares - self.config.active_share).clamp(min=0).sum()

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """After the last epoch, switch off for good what is hardly ever on."""
        if epoch == epochs - 1:
            for gate in self._gates(model).values():
                gate.close(self.config.removal_share, self.config.min_kernels)

    def protected(self, epoch: int, epochs: int) -> bool:
        """While gates are soft, and in the epoch after."""
        return epoch <= self._hard_from(epochs)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Cut what is off for every image; fold BN and threshold in."""
        gates = self._gates(model)
        for gate in gates.values():
            gate.fold()
        plan = [(self._inside(group), gates[group.name].get_buffer("alive").cpu() > 0) for group in self._groups]
        cut_channels(model, plan)
        edits = [edit for name, gate in gates.items() for edit in self._stored(model, name, gate)]
        found = counts(plan)
        kept = {f"{name}.0.conv": found[f"{name}.conv"] for name in gates}
        return Compact(model, kept=kept, edits=tuple(edits))

    def _inside(self, group: ChannelGroup) -> ChannelGroup:
        """The group while its layers, and those that read it, stand inside of gated ones."""
        gated = {one.name for one in self._groups}

        def moved(members: tuple[Member, ...]) -> tuple[Member, ...]:
            return tuple(
                replace(member, name=f"{member.name}.{part}") if member.name in gated else member
                for member in members
                for part in (("conv", "gate") if member.name in gated else ("",))
            )

        norms = tuple(replace(member, name=f"{group.name}.norm") for member in group.norms)
        producers, consumers = moved(group.producers), moved(group.consumers)
        return replace(group, name=f"{group.name}.conv", producers=producers, norms=norms, consumers=consumers)

    def _stored(self, model: nn.Module, name: str, gate: "LearnedGate") -> list[Edit]:
        """The edits of one gated layer, made in `model`."""
        conv = gate.conv
        if isinstance(gate.norm, nn.BatchNorm2d):
            weight, bias = folded(conv, gate.norm)
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
        edits = [Edit(place=name, parts=(GatedConvPart(conv=conv_part(conv)),))]
        # the places hold the layers of the dense network when the edits are made anew
        replace_module(model, name, conv)
        if name in self._norms:
            replace_module(model, self._norms[name], gate.norm)
            edits.append(Edit(place=self._norms[name], parts=(IdentityPart(),)))
        install(model, edits)
        made = cast("GatedConv2d", model.get_submodule(f"{name}.0"))
        made.conv, made.gate = conv, gate.gate
        return edits


class LearnedGate(nn.Module):
    """A convolution, its BN and its gate while they train; (N, I, H, W) -> (N, O, H', W').

    Buffers: `alive` is 0 for a kernel that is off for good; `on` counts the training images of the epoch for which
    each kernel was on, `seen` all of them.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, threshold: float) -> None:
        super().__init__()
        inputs, outputs, device = conv.in_channels, conv.out_channels, conv.weight.device
        self.conv = conv
        self.norm = norm
        self.gate = nn.Linear(inputs, outputs, bias=False, device="meta")
        self.gate.weight = nn.Parameter(torch.zeros(outputs, inputs, device=device))
        self.spread = nn.BatchNorm1d(outputs, device=device)
        nn.init.constant_(self.spread.bias, OPEN_AT_FIRST)
        self.limit = math.log(threshold / (1 - threshold))
        self.hard = False
        self._opening: Tensor | None = None
        self.register_buffer("alive", torch.ones(outputs, device=device))
        self.register_buffer("on", torch.zeros(outputs, dtype=torch.int64, device=device))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device=device))

    @torch.no_grad()
    def draw(self, source: torch.Generator) -> None:
        """Draw the first weights of the gate."""
        shape = self.gate.weight.shape
        self.gate.weight.copy_(torch.randn(shape, generator=source) / math.sqrt(shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        """The kernels' outputs, times their gates."""
        logits = self.spread(self.gate(x.mean((2, 3))))
        hard = (logits >= self.limit).to(logits.dtype)
        opening = hard * self.get_buffer("alive").to(logits.dtype)
        if self.training:
            soft = torch.sigmoid(logits)
            through = hard + (soft - soft.detach())  # in this order exactly 0 or 1
            self._opening = through
            self._count(hard)
            opening = through if self.hard else soft
        return self.norm(self.conv(x)) * opening[:, :, None, None]

    @torch.no_grad()
    def _count(self, hard: Tensor) -> None:
        self.get_buffer("on").add_(hard.sum(0).to(torch.int64))
        self.get_buffer("seen").add_(len(hard))

    def take_opening(self) -> Tensor:
        """Which kernels were on for the last batch, (N, O), with their gradient."""
        opening, self._opening = self._opening, None
        if opening is None:
            msg = "the gates have seen no batch"
            raise RuntimeError(msg)
        return opening

    @torch.no_grad()
    def fold(self) -> None:
        """Put the statistics over images, and the threshold, into the gate's weights: it is on where a >= 0."""
        mean, variance = (self.spread.get_buffer(f"running_{name}").double() for name in ("mean", "var"))
        ratio = self.spread.weight.double() / (variance + self.spread.eps).sqrt()
        self.gate.bias = nn.Parameter((self.spread.bias.double() - ratio * mean - self.limit).float())
        self.gate.weight.copy_(self.gate.weight.double() * ratio[:, None])

    def close(self, share: float, least: int) -> None:
        """Switch off for good the kernels that were on for at most `share` of the images; `least` of them stay."""
        on = self.get_buffer("on")
        stays = on > share * self.get_buffer("seen")
        often = on.argsort(descending=True, stable=True)[:least]
        stays[often] = True
        self.get_buffer("alive").copy_(stays)


def _outputs(model: nn.Module) -> dict[str, Node]:
    """For each convolution the node of the model's graph that gives its outputs: its own, or the BN that reads it."""
    nodes = graph(model)
    found = {str(node.target): node for node in nodes.nodes if isinstance(layer_of(model, node), nn.Conv2d)}
    return found | {str(conv.target): norm for conv, norm in pairs(model, nodes)}


def _reason(model: nn.Module, name: str, outputs: Mapping[str, Node]) -> str:
    """Why a convolution cannot have a gate; empty if it can."""
    conv, behind = cast("nn.Conv2d", model.get_submodule(name)), outputs.get(name)
    if behind is None:
        return "it is not in the network's graph"
    if conv.groups > 1:
        return f"it has {conv.groups} groups, and gates switch kernels of one"
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return f"its padding is {conv.padding!r} of mode {conv.padding_mode}"
    if not read_by(model, behind):
        return "its kernels are read by a sum, a further BN or a convolution of groups, which needs what is off too"
    return ""


def _convolution(layer: nn.Module) -> nn.Conv2d | None:
    return layer if isinstance(layer, nn.Conv2d) else None
