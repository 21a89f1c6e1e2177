"""k x k convolutions as pairs of one-dimensional ones, trained end to end."""

import math

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.method_config import DecomposeConfig
from trainables.methods.base import Method
from trainables.methods.layers import picked_outside
from trainables.models.compact import Compact
from trainables.models.edits import Edit, NormPart, Part, ReluPart, conv_part, install
from trainables.models.factors import separable_factors
from trainables.pruning.sharing import refuse_shared
from trainables.training.randomness import generator


class Decompose(Method):
    """y = H * phi(V * x): V of shape (L, I, k, 1), H of shape (O, L, 1, k), in place of W of shape (O, I, k, k).

    phi is BN and ReLU, one of both or nothing; what stood behind the layer stays there. L = ceil(width_share O). The
    weights fall from k^2 I O to k L (I + O): at L = I = O and k = 3 to two thirds. The gradient is that of two layers.
    With the stride s, which V takes along the columns alone, multiply-accumulates for each pixel of the output fall
    from k^2 I O to k L (s I + O); a layer stays whole where they would not.

    With `init: parent` V and H begin with the best pair of rank L for the parent's W. Otherwise they are drawn as any
    first weights are, and the other layers begin with the parent's: the source trains the whole network from nothing.

    Fewer multiply-accumulates in more layers: a runtime may take longer for them.

    Reference: Alvarez and Petersson, "DecomposeMe: Simplifying ConvNets for End-to-End Learning", arXiv 1606.05426,
    2016; its body was not available, so L, the place of BN and which layers are kept or stay whole are inferred.
    """

    edits: tuple[Edit, ...] = ()

    def __init__(self, config: DecomposeConfig) -> None:
        self.config = config

    def transform(self, model: nn.Module, example: Tensor) -> None:
        """Put a pair in the place of every convolution of one group with a kernel larger than 1 x 1, where it pays.

        Raises:
            InfeasibleError: there is none, or one shares its weights or cannot be described.

        """
        share = self.config.width_share
        wanted = f"k x k convolution of one group of more multiply-accumulates than its pair at width_share {share:g}"
        found = picked_outside(model, self.config.keep, self._decomposable, wanted)
        refuse_shared(model, example, found)
        self.edits = tuple(self._edit(name, conv) for name, conv in found.items())
        install(model, self.edits)
        source = generator(self.seed, "method")
        for name, conv in found.items():
            self._fill(model.get_submodule(name), conv, source)

    def _decomposable(self, layer: nn.Module) -> nn.Conv2d | None:
        if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or min(layer.kernel_size) == 1:
            return None
        return layer if pays(layer, self._width(layer)) else None

    def _width(self, conv: nn.Conv2d) -> int:
        return math.ceil(self.config.width_share * conv.out_channels - 1e-9)

    def _edit(self, name: str, conv: nn.Conv2d) -> Edit:
        width = self._width(conv)
        kernel, stride, dilation = conv.kernel_size, conv.stride, conv.dilation
        try:
            up, down = int(conv.padding[0]), int(conv.padding[1])
            vertical = conv_part(
                conv, outputs=width, kernel=(kernel[0], 1), stride=(stride[0], 1), padding=(up, 0),
                dilation=(dilation[0], 1), bias="norm" not in self.config.between,
            )  # fmt: skip
            horizontal = conv_part(
                conv, inputs=width, kernel=(1, kernel[1]), stride=(1, stride[1]), padding=(0, down),
                dilation=(1, dilation[1]),
            )  # fmt: skip
            return Edit(place=name, parts=(vertical, *self._between(width), horizontal))
        except ValueError as error:
            msg = f"layer {name} cannot be decomposed: {error}"
            raise InfeasibleError(msg) from error

    def _between(self, width: int) -> tuple[Part, ...]:
        parts: dict[str, tuple[Part, ...]] = {
            "norm_relu": (NormPart(channels=width), ReluPart()),
            "relu": (ReluPart(),),
            "norm": (NormPart(channels=width),),
            "nothing": (),
        }
        return parts[self.config.between]

    @torch.no_grad()
    def _fill(self, chain: nn.Module, conv: nn.Conv2d, source: torch.Generator) -> None:
        vertical, horizontal = (layer for layer in chain.modules() if isinstance(layer, nn.Conv2d))
        if self.config.init == "parent":
            first, second = separable_factors(conv.weight, vertical.out_channels)
            vertical.weight.copy_(first)
            horizontal.weight.copy_(second)
        else:
            for layer in (vertical, horizontal):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=source)
        if vertical.bias is not None:
            nn.init.zeros_(vertical.bias)
        if horizontal.bias is not None and conv.bias is not None:
            horizontal.bias.copy_(conv.bias)

    @torch.no_grad()
    def finalize(self, model: nn.Module) -> Compact:
        """The network as it was trained."""
        return Compact(model, edits=self.edits)


def pays(conv: nn.Conv2d, width: int) -> bool:
    """Whether a pair with `width` filters between has fewer multiply-accumulates than the convolution."""
    inputs, outputs, (rows, columns) = conv.in_channels, conv.out_channels, conv.kernel_size
    pair = width * (rows * inputs * conv.stride[1] + columns * outputs)
    return pair < rows * columns * inputs * outputs
