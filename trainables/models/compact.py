"""What a compression leaves: a small network and what its numbers may be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from trainables.models.edits import Edits
from trainables.models.grids import Grid
from trainables.quantize import Activation

FEW_BITS = 7
"""Bits of an activation up to which a step of 8 bits before it would move values to other levels."""


@dataclass(frozen=True, slots=True)
class Compact:
    """A finished network: physically small, made of plain torch layers and, where asked, quantized activations.

    Attributes:
        model: convolutions, linear layers and BN as torch has them; `activations` are modules of `trainables.quantize`.
        bits: of each weight of a convolution or linear layer, by module name; a layer that is absent is fp32. Filter o
            of a 1-bit layer holds two values, {-a_o, +a_o} unless the scale is `two_valued`, that of a 2-bit layer
            {-a_o, 0, +a_o}. Those in `grids` hold what their grid has.
        kept: (kept, of) channels of each group of coupled channels in scope, by the name of its first producer.
        activations: modules that quantize what they give, by name.
        input_bits: of the inputs of a layer whose inputs are quantized, by its name; other inputs are fp32.
        edits: what was put in the place of layers of the dense network, in order; channels may be cut since.
        grids: of layers whose weights are whole steps from a zero, by name; `bits` has them too.

    """

    model: nn.Module
    bits: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    activations: Mapping[str, Activation] = field(default_factory=dict)
    input_bits: Mapping[str, int] = field(default_factory=dict)
    edits: Edits = ()
    grids: Mapping[str, Grid] = field(default_factory=dict)

    @property
    def has_few_bit_activations(self) -> bool:
        """Whether any activation has at most `FEW_BITS` bits."""
        return any(activation.bits <= FEW_BITS for activation in self.activations.values())
