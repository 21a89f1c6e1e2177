"""Post-training quantization with few images: grids for groups of filters, calibrated by blocks, then together."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.errors import InfeasibleError
from trainables.method_config import PtqGroupConfig
from trainables.methods.base import Method
from trainables.methods.grid_layers import ClippedActivation, FrozenNorm, GridQuantizer, frozen, thawed
from trainables.methods.grid_search import activation_step, weight_grids
from trainables.methods.inputs import WayOut, feeding, input_bits
from trainables.methods.layers import layers_outside
from trainables.models.build import first_layer, last_layer
from trainables.models.compact import Compact
from trainables.models.edits import Edits
from trainables.models.folding import fold
from trainables.models.grids import next_to_one_another
from trainables.models.modes import modes_kept, watch
from trainables.pruning.sharing import refuse_shared
from trainables.quantize import (
    Activation,
    ActivationForm,
    Quantized,
    install_activations,
    plain_layer,
    quantized_twin,
    replace_module,
)
from trainables.training.blockwise import Fit, Steps, blocks_of, follow
from trainables.training.distill import logits_loss
from trainables.training.randomness import generator

APART = 4
"""One image in so many judges what the joint stage has learned."""

BATCH = 128
"""Images a pass where nothing is trained."""

MOST_VALUES = 1 << 18
"""Of an activation, that its range is chosen by."""

_FORMS: dict[int, ActivationForm] = {
    2: "int2", 3: "int3", 4: "int4", 5: "int5", 6: "int6", 7: "int7", 8: "int8",
}  # fmt: skip


@dataclass(slots=True)
class _Judged:
    """The images set apart, what the parent says of them, and the network before the joint stage with its distance."""

    images: Tensor
    labels: Tensor
    parent: Tensor
    values: Mapping[str, Tensor]
    loss: float = math.inf


class PtqGroup(Method):
    """w' = s_g (clamp(round(w / s_g) + z_g, 0, 2^b - 1) - z_g), g one of G groups of the layer's filters.

    First BN is folded into the convolution before it. s_g and z_g are those of least squared error
    (`trainables.methods.grid_search`); G = 1 is a grid a layer, G = 0 one a filter. Filters are
    grouped as they stand, or sorted by max|w|; depthwise convolutions always have a grid a filter, as their filters'
    ranges differ most and a group would save next to nothing. What a ReLU gives is rounded to s_a (0 ... 2^a - 1), s_a
    by the largest value on the images, by least squares, or trained on from there.

    Stage 1: block by block, in order, min ||f_q - f_fp||^2 on the images, over weights, biases and steps, straight
    through the rounding (`trainables.training.blockwise`). Stage 2: the whole network by the losses of distillation on
    the same images (`trainables.methods.distilled`). A quarter of the images is set apart from both where there is a
    stage 2, and what it has learned is thrown away unless the network comes nearer to the parent on them: in the mean
    KL(softmax(parent) || softmax(network)). No label is used unless `distill` is below 1; then that share of the
    judgement is the cross entropy. BN that no convolution precedes keeps its statistics.

    Inputs of the first and the last layer are rounded only where a ReLU gives them.

    Reference: "Low-bit Quantization with Limited Data" as in the sources' list, ICPR 2020; of its body only the outline
    was available: groups of filters and distillation in two stages are its, how grids are searched, that steps are
    trained (LSQ, ICLR 2020), that blocks read what the student's blocks give (BRECQ, ICLR 2021), the images that are
    set apart and all rates are not.
    """

    def __init__(self, config: PtqGroupConfig) -> None:
        self.config = config
        self.calibration_images = config.images - self._apart
        self.edits: Edits = ()
        self.fits: list[Fit] = []
        self._activations: tuple[str, ...] = ()
        self._layers: list[str] = []
        self._teacher: nn.Module | None = None
        self._judged: _Judged | None = None

    @property
    def _apart(self) -> int:
        """How many images are set apart."""
        return self.config.images // APART if self.config.joint else 0

    def chosen_images(self, available: int) -> Tensor:
        """The images' draw from (seed, "calibration", image_seed); a smaller one is the beginning of a larger.

        Raises:
            InfeasibleError: there are not as many.

        """
        if available < self.config.images:
            msg = f"compress.images {self.config.images} is more than the {available} training images that there are"
            raise InfeasibleError(msg)
        return self._drawn(available)[: self.config.images - self._apart]

    def apart_images(self, available: int) -> Tensor | None:
        """The last of the draw, where there is a joint stage."""
        return self._drawn(available)[self.config.images - self._apart : self.config.images] if self._apart else None

    def _drawn(self, available: int) -> Tensor:
        source = generator(self.seed, "calibration", self.config.image_seed)
        return torch.randperm(available, generator=source)

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Fold, then put grids in the place of weights and of what feeds layers.

        Raises:
            InfeasibleError: layers share weights, the groups do not divide a layer's filters, a layer has inputs that
                cannot be quantized, or the network cannot be followed.

        """
        refuse_shared(model, example, layers_outside(model, ()))
        self.edits = fold(model)
        self._layers = layers_outside(model, ())
        few = frozenset(layers_outside(model, self.config.eight_bits))
        grids = {name: self._grids(name, model.get_submodule(name), few=name in few) for name in self._layers}
        self._teacher = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        if self.config.activation_bits is not None:
            self._activations = _rectifiers(model, self._layers)
        for name in self._activations:
            bits = self.config.activation_bits or 8
            replace_module(model, name, ClippedActivation(bits, learned=self.config.clip == "learned"))
        for name in self._layers:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                replace_module(model, name, quantized_twin(layer, _quantizer(layer.weight.detach(), *grids[name])))
        for name, norm in list(model.named_modules()):
            if type(norm) is nn.BatchNorm2d:
                replace_module(model, name, frozen(norm))

    def _grids(self, name: str, layer: nn.Module, *, few: bool) -> tuple[int, int, bool]:
        """Bits of a layer, how many groups it has, and whether they are of filters of similar range."""
        bits = self.config.weight_bits if few else 8
        filters = layer.get_parameter("weight").shape[0]
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        wanted = self.config.groups
        if wanted == 0 or depthwise or not few:
            return bits, filters, False
        if filters % wanted:
            msg = f"{wanted} groups (compress.groups) do not divide the {filters} filters of layer {name}"
            raise InfeasibleError(f"{msg}; take a divisor, or 0: a grid a filter, as compress.eight_bits layers have")
        return bits, wanted, self.config.grouping == "range" and 1 < wanted < filters

    @torch.no_grad()
    def calibrate(self, model: nn.Module, images: Tensor) -> None:
        """Set the ranges of activations, then calibrate the blocks.

        Raises:
            InfeasibleError: a block cannot be calibrated alone.

        """
        if self._teacher is None:
            msg = "calibrate comes after transform, which was not called"
            raise RuntimeError(msg)
        for name, values in _values(self._teacher, self._activations, images).items():
            step = model.get_submodule(name).get_parameter("step")
            bits = self.config.activation_bits or 8
            largest = float(values.max()) / (2**bits - 1)
            step.fill_(largest if self.config.clip == "max" and largest > 0 else activation_step(values, bits))
        if self.config.blocks != "none":
            whole = self.config.blocks == "block"
            blocks = blocks_of(self._teacher, self._layers, images[:1]) if whole else self._in_order(images[:1])
            steps = Steps(self.config.block_steps, self.config.block_rate)
            with torch.enable_grad():
                self.fits = follow(model, self._teacher, blocks, images, steps, generator(self.seed, "method"))

    @torch.no_grad()
    def judge(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Keep the network before the joint stage, and how far from the parent it is."""
        if self._teacher is None:
            msg = "judge comes after transform, which was not called"
            raise RuntimeError(msg)
        values = {name: tensor.clone() for name, tensor in _values_of(model)}
        self._judged = _Judged(images, labels, self._teacher(images), values)
        self._judged.loss = self._distance(model, self._judged)

    def _distance(self, model: nn.Module, judged: "_Judged") -> float:
        """How far from the parent a network is on the images set apart."""
        device = next(model.parameters()).device
        with modes_kept(model):
            logits = torch.cat([model(part.to(device)) for part in judged.images.split(BATCH)]).cpu()
        own, followed = F.cross_entropy(logits, judged.labels), logits_loss(logits, judged.parent, 1)
        return float((1 - self.config.distill) * own + self.config.distill * followed)

    def _keep_the_nearer(self, model: nn.Module) -> None:
        if self._judged is not None and not self._distance(model, self._judged) < self._judged.loss:
            for name, tensor in _values_of(model):
                tensor.copy_(self._judged.values[name])

    def _in_order(self, example: Tensor) -> Sequence[str]:
        order: list[str] = []
        if self._teacher is not None:
            watch(self._teacher, example, self._layers, lambda name, _: order.append(name))
        return order

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """Plain layers whose weights lie on their grids, and activations of few levels."""
        self._keep_the_nearer(model)
        bits = self.config.activation_bits or 8
        steps = {name: float(model.get_submodule(name).get_parameter("step")) for name in self._activations}
        activations = {name: Activation(_FORMS[bits], step) for name, step in steps.items()}
        install_activations(model, activations)
        grids = {}
        for name, layer in list(model.named_modules()):
            if isinstance(layer, FrozenNorm):
                replace_module(model, name, thawed(layer))
            elif isinstance(layer, Quantized) and isinstance(layer.quantizer, GridQuantizer):
                told = not _stands_grouped(layer.quantizer)
                grids[name] = layer.quantizer.grid(told=told)
                replace_module(model, name, plain_layer(layer))
        found = {name: grid.bits for name, grid in grids.items()}
        inputs = input_bits(model, activations)
        return Compact(model, found, activations=activations, input_bits=inputs, edits=self.edits, grids=grids)


def _stands_grouped(quantizer: GridQuantizer) -> bool:
    group = quantizer.get_buffer("group").cpu()
    return torch.equal(group, next_to_one_another(len(group), len(quantizer.step)))


def _quantizer(weight: Tensor, bits: int, groups: int, by_range: bool) -> GridQuantizer:
    """The grids of least squared error for `weight` (O, ...) in so many groups."""
    flat = weight.flatten(1)
    group = next_to_one_another(len(flat), groups).to(weight.device)
    if by_range:
        order = flat.abs().amax(1).argsort(stable=True)
        group = torch.empty_like(group).scatter_(0, order, group)
    rows = flat[group.argsort(stable=True)].reshape(groups, -1)
    return GridQuantizer(bits, *weight_grids(rows, bits), group)


def _rectifiers(model: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    """The ReLU that feed layers; the first and the last layer may read something else."""
    ends = (first_layer(model), last_layer(model))
    way_out = WayOut("compress.activation_bits null")
    fed = feeding(model, [name for name in layers if name not in ends], way_out)
    for end in ends:
        with suppress(InfeasibleError):
            fed |= feeding(model, [end], way_out)
    names = {name for sources in fed.values() for name in sources}
    return tuple(name for name, _ in model.named_modules() if name in names)


def _values_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _values(model: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """At most `MOST_VALUES` of the values that each of `names` gives for `images`, evenly chosen, fp32 (n,)."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [model.get_submodule(name).register_forward_hook(partial(_keep, seen[name], len(images))) for name in names]
    for part in images.split(BATCH):
        model(part)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def _keep(kept: list[Tensor], images: int, _: nn.Module, __: object, output: Tensor) -> None:
    every = max(1, output[0].numel() * images // MOST_VALUES)
    kept.append(output.detach().float().flatten()[::every].clone())
