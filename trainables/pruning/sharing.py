"""Layers whose weights serve in more than one place: what is done to them in one place would be done in the other."""

from collections import Counter, defaultdict
from collections.abc import Collection

from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.models.modes import watch


def refuse_shared(model: nn.Module, example: Tensor, names: Collection[str]) -> None:
    """Refuse to compress a layer of `names` that is called twice, stands under two names or shares a parameter.

    `example` is one image, shape (1, C, H, W). The model's modes and statistics are as before.

    Raises:
        InfeasibleError: there is one; the first in module order is named.

    """
    tied = _tied(model)
    for name, _ in model.named_modules():
        if name in names and name in tied:
            msg = f"layer {name} shares its weights with {tied[name]}; shared weights cannot be pruned or quantized"
            raise InfeasibleError(msg)
    calls = _calls(model, example, names)
    for name, _ in model.named_modules():
        if calls[name] > 1:
            msg = f"layer {name} is used {calls[name]} times in one pass; such a layer cannot be pruned or quantized"
            raise InfeasibleError(msg)


def _tied(model: nn.Module) -> dict[str, str]:
    """For each layer that shares a parameter, the name of the first other one."""
    users: defaultdict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            users[id(parameter)].append(name)
    return {
        name: next(other for other in names if other != name)
        for names in users.values()
        for name in names
        if len(set(names)) > 1
    }


def _calls(model: nn.Module, example: Tensor, names: Collection[str]) -> Counter[str]:
    """How often each layer runs in one pass."""
    counted: Counter[str] = Counter()
    watch(model, example, names, lambda name, _: counted.update([name]))
    return counted
