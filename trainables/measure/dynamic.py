"""What a network computes for each image, where its gates make that depend on the image."""

from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainables.measure.cost import layer_macs
from trainables.models.gated import gated
from trainables.models.readers import gated_inputs

Shares = defaultdict[str, list[Tensor]]


@dataclass(frozen=True, slots=True)
class DynamicCost:
    """Multiply-accumulates of a network with gates over some images.

    Attributes:
        layers: of each convolution and linear layer, mean over images.
        images: of each image, in fp64, shape (N,).
        classes: mean over the images of each class, of those that have any.
        worst: of an image that needs every kernel.

    """

    layers: Mapping[str, float]
    images: Tensor
    classes: Mapping[int, float]
    worst: int

    @property
    def expected(self) -> float:
        """Of an image, mean over all."""
        return float(self.images.mean())


@contextmanager
def gates_watched(model: nn.Module) -> Generator[Shares]:
    """While `model` runs, note for each gated convolution the share of its kernels that is on for each image."""
    seen: Shares = defaultdict(list)

    def see(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        seen[name].append(output.mean(1, dtype=torch.float64).cpu())

    handles = [layer.step.register_forward_hook(partial(see, name)) for name, layer in gated(model).items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def dynamic_cost(model: nn.Module, example: Tensor, seen: Shares, labels: Tensor) -> DynamicCost | None:
    """What the images cost on which the gates were watched; None for a network without gates.

    A kernel that is off takes no multiply-accumulates, nor do the inputs that it leaves to layers that read it alone
    (`trainables.models.readers`), in their gates too. The gates themselves count.

    Args:
        model: the network.
        example: an image, shape (1, C, H, W).
        seen: from `gates_watched`, while `model` ran on N images.
        labels: of these images, shape (N,).

    """
    if not seen:
        return None
    shares = {name: torch.cat(parts) for name, parts in seen.items()}
    sources, macs = gated_inputs(model), layer_macs(model, example)
    ones = torch.ones(len(labels), dtype=torch.float64)
    layers: dict[str, Tensor] = {}
    for name, count in macs.items():
        parent, _, part = name.rpartition(".")
        inside = parent if parent in shares else name
        on = shares[parent] if inside != name and part == "conv" else ones
        layers[name] = count * on * (shares[sources[inside]] if inside in sources else 1.0)
    images = torch.stack(list(layers.values())).sum(0)
    classes = {int(label): float(images[labels == label].mean()) for label in labels.unique()}
    means = {name: float(found.mean()) for name, found in layers.items()}
    return DynamicCost(means, images, classes, sum(macs.values()))
