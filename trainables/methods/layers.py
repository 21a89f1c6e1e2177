"""Which layers of a network a method works on."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import nn

from trainables.config import LayerRole
from trainables.errors import InfeasibleError
from trainables.models.build import first_layer, last_layer

Picked = TypeVar("Picked")


def layers_outside(model: nn.Module, roles: Sequence[LayerRole]) -> list[str]:
    """Names of the convolutions and linear layers that no role in `roles` covers, in module order.

    `first` is the first convolution, `last` the last linear layer, `downsample` every 1x1 convolution of a shortcut.
    Subclasses of torch's layers are left out: who made them may read their weights elsewhere, as attention does.
    """
    kept = {name for role in roles for name in _covered(model)[role]}
    return [name for name in _layers(model) if name not in kept]


def role_of(model: nn.Module, name: str) -> LayerRole | None:
    """The first role that covers a layer, if one does."""
    return next((role for role, names in _covered(model).items() if name in names), None)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)}


def _covered(model: nn.Module) -> dict[LayerRole, set[str]]:
    return {
        "first": {first_layer(model)},
        "last": {last_layer(model)},
        "downsample": {name for name, layer in _layers(model).items() if _is_shortcut(name, layer)},
    }


def _is_shortcut(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and "downsample" in name.split(".")


def picked_outside(
    model: nn.Module, roles: Sequence[LayerRole], pick: Callable[[nn.Module], Picked | None], wanted: str
) -> dict[str, Picked]:
    """What `pick` makes of each of `layers_outside`, by name, in module order; None: that layer is left out.

    Raises:
        InfeasibleError: all are left out; the message says that the model has no `wanted`.

    """
    made = {name: pick(model.get_submodule(name)) for name in layers_outside(model, roles)}
    found = {name: one for name, one in made.items() if one is not None}
    if not found:
        kept = f" outside of {', '.join(roles)} (compress.keep)" if roles else ""
        msg = f"{type(model).__name__} has no {wanted}{kept}"
        raise InfeasibleError(msg)
    return found
