"""The graph of a network's forward pass; a layer, ours or torch's, is one node."""

from typing import Any

import torch.fx
from torch import nn
from torch.fx.proxy import TraceError

from trainables.errors import InfeasibleError
from trainables.models.gated import GatedConv2d
from trainables.models.gather import Gather
from trainables.quantize import IntActivation, SignActivation, TernaryActivation

_WHOLE = (SignActivation, TernaryActivation, IntActivation, GatedConv2d, Gather)


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _WHOLE) or super().is_leaf_module(m, module_qualified_name)


def graph(model: nn.Module) -> torch.fx.Graph:
    """The operations of `model` in their order; `call_module` nodes name its layers.

    Raises:
        InfeasibleError: its forward pass depends on the values of its input, so that it has no one graph.

    """
    try:
        return _Tracer().trace(model)
    except (TraceError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        msg = f"the graph of {type(model).__name__} cannot be traced: {error}"
        raise InfeasibleError(msg) from error


def layer_of(model: nn.Module, node: Any) -> nn.Module | None:
    """The layer that a node of the graph calls, or None where it calls a function."""
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None
