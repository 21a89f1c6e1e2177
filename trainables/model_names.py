"""What `model.name` may say beside our own networks: torchvision's classification models, and a user's own code."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

TORCHVISION_MMACS: dict[str, int] = {
    "alexnet": 710, "convnext_base": 15000, "convnext_large": 34000, "convnext_small": 8700, "convnext_tiny": 4500,
    "densenet121": 2800, "densenet161": 7700, "densenet169": 3400, "densenet201": 4300, "efficientnet_b0": 390,
    "efficientnet_b1": 600, "efficientnet_b2": 660, "efficientnet_b3": 1000, "efficientnet_b4": 1500,
    "efficientnet_b5": 2500, "efficientnet_b6": 3400, "efficientnet_b7": 5300, "efficientnet_v2_l": 12000,
    "efficientnet_v2_m": 5400, "efficientnet_v2_s": 2800, "googlenet": 1500, "inception_v3": 3200, "maxvit_t": 5600,
    "mnasnet0_5": 100, "mnasnet0_75": 220, "mnasnet1_0": 310, "mnasnet1_3": 530, "mobilenet_v2": 300,
    "mobilenet_v3_large": 220, "mobilenet_v3_small": 57, "regnet_x_16gf": 16000, "regnet_x_1_6gf": 1600,
    "regnet_x_32gf": 32000, "regnet_x_3_2gf": 3200, "regnet_x_400mf": 410, "regnet_x_800mf": 800,
    "regnet_x_8gf": 8000, "regnet_y_128gf": 130000, "regnet_y_16gf": 16000, "regnet_y_1_6gf": 1600,
    "regnet_y_32gf": 32000, "regnet_y_3_2gf": 3200, "regnet_y_400mf": 400, "regnet_y_800mf": 830,
    "regnet_y_8gf": 8500, "resnet101": 7800, "resnet152": 12000, "resnet34": 3700, "resnet50": 4100,
    "resnext101_32x8d": 16000, "resnext101_64x4d": 15000, "resnext50_32x4d": 4200, "shufflenet_v2_x0_5": 40,
    "shufflenet_v2_x1_0": 140, "shufflenet_v2_x1_5": 300, "shufflenet_v2_x2_0": 580, "squeezenet1_0": 820,
    "squeezenet1_1": 350, "swin_b": 15000, "swin_s": 8700, "swin_t": 4500, "swin_v2_b": 16000, "swin_v2_s": 8800,
    "swin_v2_t": 4500, "vgg11": 7600, "vgg11_bn": 7600, "vgg13": 11000, "vgg13_bn": 11000, "vgg16": 15000,
    "vgg16_bn": 15000, "vgg19": 20000, "vgg19_bn": 20000, "vit_b_16": 18000, "vit_b_32": 4400, "vit_h_14": 170000,
    "vit_l_16": 62000, "vit_l_32": 15000, "wide_resnet101_2": 23000, "wide_resnet50_2": 11000,
}  # fmt: skip
"""Torchvision's classification models that are not ours by name, and what one 224-pixel image costs each.

Millions of multiply-accumulates, two digits, from the `_ops` that torchvision states with its weights, scaled by the
number of pixels. They guide estimates alone.
"""

CODE_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""`package.module:function`, for editors."""

LONGEST = 100


def is_code(name: str) -> bool:
    """Whether a model's name is `package.module:function`, a user's own code."""
    module, sign, function = name.partition(":")
    return bool(sign) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The words that `model.name` may be, and the words in which they are told."""

    own: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Every name that needs no code of the user's."""
        return (*self.own, *TORCHVISION_MMACS)

    @property
    def wanted(self) -> str:
        """The valid names, the many of torchvision as one."""
        return (
            f"{', '.join(self.own)}, a classification model of torchvision (`orchestrator schema` lists them), "
            "or package.module:function"
        )

    def fault(self, name: str) -> str:
        """What is wrong with a name; empty where nothing is."""
        if name in self.words or is_code(name):
            return ""
        if ":" in name:
            return f"{_shown(name)} is no package.module:function; a model of your own is named so"
        return f"{_shown(name)} is not known{_meant(name, self.words)} Valid: {self.wanted}"


def _shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST else f"{name[:LONGEST]}...")


def _meant(name: str, words: Iterable[str]) -> str:
    # A name of any length can come from a study; the comparison is quadratic.
    near = difflib.get_close_matches(name[:LONGEST], sorted(words), n=1)
    return f"; did you mean '{near[0]}'?" if near else "."
