"""VGG-small, the plain network of the binary-network literature: 128-128-M-256-256-M-512-512-M and one linear layer.

Widths and order as in LQ-Nets (Zhang et al., ECCV 2018) and its followers. They flatten the last 4x4 maps (8,192
inputs to the linear layer at 32 pixels); here the maps are averaged (512 inputs), so that every image size of at least
8 pixels fits and a pruned channel is one input of the linear layer.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn


def unit(inputs: int, outputs: int, pool: bool) -> nn.Sequential:
    """3x3 convolution, BN, ReLU, and 2x2 max pooling where asked."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), bn=nn.BatchNorm2d(outputs), act=nn.ReLU()
    )
    if pool:
        layers.update(pool=nn.MaxPool2d(2))
    return nn.Sequential(layers)


class VggSmall(nn.Module):
    """Six convolutions, three poolings, one linear layer; (N, channels, H, W) -> logits (N, classes), H and W >= 8."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = unit(channels, width, pool=False)
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        self.features = nn.Sequential(
            *(unit(i, o, pool=index % 2 == 0) for index, (i, o) in enumerate(pairwise(widths)))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.classifier(self.pool(self.features(self.stem(x))).flatten(1))
