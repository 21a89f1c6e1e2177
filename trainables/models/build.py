"""From a resolved `ModelConfig` to a network, and from a generator to its first weights."""

import math
from collections.abc import Callable

import torch
from torch import nn

from trainables.config import ModelConfig
from trainables.errors import CodeError, InfeasibleError
from trainables.model_names import is_code
from trainables.models.foreign import Recipe
from trainables.models.resnet import ResNet
from trainables.models.vgg import VggSmall
from trainables.training.randomness import draw_seed

# Blocks per stage; 6n + 2 layers with n blocks in each of three stages (CVPR 2016, section 4.2).
DEPTHS: dict[str, tuple[int, ...]] = {
    "resnet8": (1, 1, 1),
    "resnet14": (2, 2, 2),
    "resnet20": (3, 3, 3),
    "resnet32": (5, 5, 5),
    "resnet56": (9, 9, 9),
    "resnet18": (2, 2, 2, 2),
}

Builder = Callable[[ModelConfig, int, int, int], nn.Module]


def _resnet(config: ModelConfig, width: int, channels: int, classes: int) -> nn.Module:
    return ResNet(channels, classes, width, DEPTHS[config.name], config.stem, config.block)


def _vgg_small(config: ModelConfig, width: int, channels: int, classes: int) -> nn.Module:
    return VggSmall(channels, classes, width)


BUILDERS: dict[str, Builder] = {**dict.fromkeys(DEPTHS, _resnet), "vgg_small": _vgg_small}

_RECIPE = "_recipe_of_trainables"


def build(config: ModelConfig, channels: int, classes: int, *, allow_code: bool = False) -> nn.Module:
    """The network of a resolved config, on the CPU and in fp32; the global random state stays as it is.

    The weights of its convolutions and linear layers are NaN until `initialise` or `load_state_dict` has set them, so
    that a forgotten call shows at once.

    Args:
        config: resolved; of a user's own model it holds the SHA-256 of the sources, which are checked against it.
        channels: of the images.
        classes: outputs.
        allow_code: whether a user's own code may be imported and run. A config that came in a file of somebody else's
            must not say so itself.

    Raises:
        CodeError: a user's own code is not allowed, is not as it was planned, or failed.
        InfeasibleError: it made no network.
        ValueError: the config is not resolved (its width is open).

    """
    model = _ours(config, channels, classes) if config.ours else _foreign(config, channels, classes, allow_code)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            for parameter in module.parameters(recurse=False):
                nn.init.constant_(parameter, math.nan)
    return model


def _foreign(config: ModelConfig, channels: int, classes: int, allow_code: bool) -> nn.Module:
    if is_code(config.name) and not allow_code:
        msg = f"model.name {config.name} is code of a user's own, which is only run where --allow-code says so"
        raise CodeError(msg)
    recipe = Recipe(config, channels, classes)
    model = recipe.make(seed=0)
    setattr(model, _RECIPE, recipe)
    return model


def _ours(config: ModelConfig, channels: int, classes: int) -> nn.Module:
    if config.width is None:
        msg = "model.width is open; build takes a resolved config (trainables.config.resolve)"
        raise ValueError(msg)
    # torch's layers draw weights when they are made. Making them on the meta device would draw none, but imports
    # torch's compiler (500 modules, 1.5 to 4 s in each process).
    with torch.random.fork_rng(devices=[]):
        return BUILDERS[config.name](config, config.width, channels, classes)


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Set every weight from `generator`, in module order.

    A network that is not ours has the first weights that its own constructor draws. In ours, convolutions: normal,
    variance 2 / fan_out (He et al., ICCV 2015, for ReLU); BN: scale 1, shift 0, fresh statistics; linear: uniform in
    +-1/sqrt(inputs); biases 0.

    Raises:
        TypeError: a module of another type holds parameters.

    """
    recipe: Recipe | None = getattr(model, _RECIPE, None)
    if recipe is not None:
        model.load_state_dict(recipe.make(draw_seed(generator)).state_dict())
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            continue
        elif next(module.parameters(recurse=False), None) is not None:
            msg = f"no initialisation is known for {name} ({type(module).__name__})"
            raise TypeError(msg)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


def first_layer(model: nn.Module) -> str:
    """Name of the first convolution in module order, or where there is none of the first linear layer.

    Raises:
        InfeasibleError: there is neither.

    """
    return (_names(model, nn.Conv2d) or _layers(model))[0]


def last_layer(model: nn.Module) -> str:
    """Name of the last linear layer in module order, or where there is none of the last convolution.

    Raises:
        InfeasibleError: there is neither.

    """
    return (_names(model, nn.Linear) or _layers(model))[-1]


def _layers(model: nn.Module) -> list[str]:
    names = _names(model, (nn.Conv2d, nn.Linear))
    if not names:
        msg = f"{type(model).__name__} has neither a convolution (Conv2d) nor a linear layer"
        raise InfeasibleError(msg)
    return names


def _names(model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]
