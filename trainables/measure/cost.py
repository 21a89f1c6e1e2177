"""What a network costs to store and to run, and how much smaller it is than its dense parent.

Convolutions and linear layers count; BN and activations do no multiply-accumulates here. `bits` of a weight are as in
`trainables.models.compact.Compact`: 1, 2 (ternary) or absent (fp32).
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from trainables.config import CostConfig
from trainables.models.edits import origins
from trainables.models.modes import watch

FP_BITS = 32
TRITS_A_BYTE = 5
"""3^5 = 243 values fit into one byte."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The costs of one network.

    Attributes:
        params: trained numbers: weights, biases, BN scales and shifts.
        macs: multiply-accumulates of one image, or expected ones; one MAC counts 1.
        bops: bit operations of one image, the sum of MACs x weight bits x activation bits over layers.
        mac_cost: MACs of one image, each times its `mac_weight`.
        payload_bits: `stored_bits` over convolutions and linear layers; BN, biases and scales left out (the convention
            of Prabhu et al., WACV 2018).
        bits_per_weight: payload_bits over the number of these weights.
        weight_bytes: of the packed file, those that hold these weights: payload_bits, each layer filled up to a byte.

    """

    params: int
    macs: int
    bops: int
    mac_cost: float
    payload_bits: int
    bits_per_weight: float
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times smaller a compact network is than the dense one.

    Attributes:
        compression: 4 bytes per dense parameter (BN as scale and shift), over the bytes of the whole packed file.
        payload_compression: 32 bits per dense weight over the compact payload_bits.
        hidden_compression: the same over the layers of few bits alone; None where there are none.
        layer_compression_max: the largest 32 x dense weights / stored bits of one layer.

    """

    compression: float
    payload_compression: float
    hidden_compression: float | None
    layer_compression_max: float


def layer_weights(model: nn.Module) -> dict[str, int]:
    """The number of weights of each convolution and linear layer, biases left out, in module order."""
    return {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def layer_macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear layer for one image `example`, shape (1, C, H, W).

    Weights x output positions, which holds for grouped convolutions too; a layer that runs twice counts twice.
    """
    macs = dict.fromkeys(layer_weights(model), 0)

    def count(name: str, output: Tensor) -> None:
        weight = model.get_submodule(name).get_parameter("weight")
        macs[name] += weight.numel() * (output.numel() // weight.shape[0])

    watch(model, example, macs, count)
    return macs


def stored_bits(weights: int, bits: int, *, coded: bool = False) -> int:
    """Bits that a layer's weights take: weights x bits, but five ternary ones (bits 2) a byte, so 1.6 bits each.

    `coded` ones are whole steps of a grid, of which 2 bits hold four.
    """
    return 8 * math.ceil(weights / TRITS_A_BYTE) if bits == 2 and not coded else weights * bits


def layer_bits(weights: Mapping[str, int], bits: Mapping[str, int], coded: Collection[str] = ()) -> dict[str, int]:
    """`stored_bits` of each layer; one that `bits` lacks is fp32, those of `coded` are on grids."""
    return {name: stored_bits(n, bits.get(name, FP_BITS), coded=name in coded) for name, n in weights.items()}


def payload_bits(weights: Mapping[str, int], bits: Mapping[str, int], coded: Collection[str] = ()) -> int:
    """`layer_bits`, summed."""
    return sum(layer_bits(weights, bits, coded).values())


def mac_weight(weight_bits: int, input_bits: int, weights: CostConfig) -> float:
    """What one multiply-accumulate counts, by the bits of its two sides; 1 where both are fp32."""
    if max(weight_bits, input_bits) <= 2:
        return weights.low_bit
    if max(weight_bits, input_bits) <= 8:
        return weights.int8
    return weights.weight_only if weight_bits <= 2 else 1.0


def cost(
    model: nn.Module,
    bits: Mapping[str, int],
    example: Tensor,
    input_bits: Mapping[str, int] | None = None,
    mac_weights: CostConfig | None = None,
    expected_macs: Mapping[str, float] | None = None,
    coded: Collection[str] = (),
) -> Cost:
    """The costs of `model`, whose layers store `bits` per weight; `example` is one image, shape (1, C, H, W).

    `expected_macs`, of each layer, take the place of those of `example` where they differ from image to image.

    A layer that `bits` or `input_bits` lacks is fp32, the weights of one in `coded` are on a grid. A weight-binary MAC
    with fp32 inputs is thus 32 bops, a fully binary one 1, an fp32 one 1,024. Published speed-ups weigh them otherwise
    (1/58 per fully binary MAC in XNOR-Net, 1/64 in others): `mac_weights` say how `mac_cost` does. No machine's time is
    meant here.
    """
    weights, macs = layer_weights(model), expected_macs or layer_macs(model, example)
    sides = {name: (bits.get(name, FP_BITS), (input_bits or {}).get(name, FP_BITS)) for name in macs}
    counted = mac_weights or CostConfig()
    stored = layer_bits(weights, bits, coded)
    payload = sum(stored.values())
    return Cost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=round(sum(macs.values())),
        bops=round(sum(count * math.prod(sides[name]) for name, count in macs.items())),
        mac_cost=math.fsum(count * mac_weight(*sides[name], counted) for name, count in macs.items()),
        payload_bits=payload,
        bits_per_weight=payload / sum(weights.values()),
        weight_bytes=sum(math.ceil(count / 8) for count in stored.values()),
    )


def ratios(
    dense: nn.Module, compact: nn.Module, bits: Mapping[str, int], packed_bytes: int, coded: Collection[str] = ()
) -> Ratios:
    """How many times smaller `compact`, packed to `packed_bytes`, is than `dense`.

    Layers are matched by name; those of a chain that took the place of one count as that one together.
    """
    whole, kept = layer_weights(dense), layer_weights(compact)
    stored = Counter[str]()
    taken = layer_bits(kept, bits, coded)
    for name, place in origins(whole, kept).items():
        stored[place] += taken[name]
    return Ratios(
        compression=4 * sum(parameter.numel() for parameter in dense.parameters()) / packed_bytes,
        payload_compression=payload_compression(whole, kept, bits, coded),
        hidden_compression=hidden_compression(whole, kept, bits, coded),
        layer_compression_max=max(FP_BITS * count / stored[name] for name, count in whole.items() if stored[name]),
    )


def payload_compression(
    dense: Mapping[str, int], kept: Mapping[str, int], bits: Mapping[str, int], coded: Collection[str] = ()
) -> float:
    """32 bits per dense weight over the kept weights' bits."""
    return payload_bits(dense, {}) / payload_bits(kept, bits, coded)


def hidden_compression(
    dense: Mapping[str, int], kept: Mapping[str, int], bits: Mapping[str, int], coded: Collection[str] = ()
) -> float | None:
    """The same over the layers in `bits` alone, so without the full-precision ends; None where there are none.

    A chain that took the place of a dense layer counts as a whole where any of its layers is in `bits`.
    """
    if not bits:
        return None
    places = origins(dense, kept)
    hidden = {places[name] for name in bits if name in places}
    stored = {name: kept[name] for name, place in places.items() if place in hidden}
    return FP_BITS * sum(dense[name] for name in hidden) / payload_bits(stored, bits, coded)
