"""Residual networks of basic blocks: ResNet-8/14/20/32/56 for small images, ResNet-18 with either stem.

References: He et al., "Deep Residual Learning", CVPR 2016, sections 3.3, 4.1 and 4.2 (block `standard`); He et al.,
"Identity Mappings in Deep Residual Networks", ECCV 2016 (order of block `bn_first`).
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    """A square convolution that keeps the image's size at stride 1; no bias, as a BN follows or precedes."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """Option B of the paper: a 1x1 convolution and BN where the shape changes, else the identity (None)."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(OrderedDict(conv=conv(inputs, outputs, 1, stride), bn=nn.BatchNorm2d(outputs)))


class StandardBlock(nn.Module):
    """relu(x' + BN(conv(relu(BN(conv(x)))))), x' being x or its downsampling; (N, I, H, W) -> (N, O, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = conv(outputs, outputs, 3, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.act2(y + (x if self.downsample is None else self.downsample(x)))


class BnFirstBlock(nn.Module):
    """x' + conv(relu(BN(conv(relu(BN(x)))))): each convolution reads what `act1` or `act2` gives.

    An activation quantizer takes the place of `act1` and `act2`. Where the shape changes, the shortcut reads the
    activated input too (ECCV 2016, section 3), so that its convolution has quantized inputs as well.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.conv2 = conv(outputs, outputs, 3, 1)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        active = self.act1(self.bn1(x))
        y = self.conv2(self.act2(self.bn2(self.conv1(active))))
        return y + (x if self.downsample is None else self.downsample(active))


BLOCKS: dict[str, type[StandardBlock | BnFirstBlock]] = {"standard": StandardBlock, "bn_first": BnFirstBlock}


def stem(name: str, channels: int, width: int, normalise: bool) -> nn.Sequential:
    """The layers before the first block: 3x3 (cifar), or 7x7 at stride 2 and max pooling (imagenet).

    `normalise` adds BN and ReLU, which `bn_first` blocks bring themselves.
    """
    wide = name == "imagenet"
    first = conv(channels, width, 7, 2) if wide else conv(channels, width, 3, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=first)
    if normalise:
        layers.update(bn=nn.BatchNorm2d(width), act=nn.ReLU())
    if wide:
        layers.update(pool=nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(layers)


class ResNet(nn.Module):
    """Stem, stages of blocks whose width doubles as the image halves, mean over the image, one linear layer.

    Args:
        channels: of the images.
        classes: outputs.
        width: filters of the first stage; stage i has width * 2^i.
        depths: blocks per stage.
        stem_name: `cifar` or `imagenet`.
        block: `standard` or `bn_first`.

    Input (N, channels, H, W), normalised; output logits (N, classes).

    """

    def __init__(
        self, channels: int, classes: int, width: int, depths: Sequence[int], stem_name: str, block: str
    ) -> None:
        super().__init__()
        self.stem = stem(stem_name, channels, width, normalise=block == "standard")
        stages: list[nn.Module] = []
        inputs = width
        for index, depth in enumerate(depths):
            outputs = width * 2**index
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            widths = [inputs] + [outputs] * (depth - 1)
            stages.append(nn.Sequential(*(BLOCKS[block](i, outputs, s) for i, s in zip(widths, strides, strict=True))))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = final_norm(inputs) if block == "bn_first" else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.classifier(self.pool(self.head(self.stages(self.stem(x)))).flatten(1))


def final_norm(width: int) -> nn.Sequential:
    """BN and ReLU between the last `bn_first` block and the pooling."""
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(width), act=nn.ReLU()))
