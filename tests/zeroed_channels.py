"""What the removal of channels must equal: the same channels set to zero everywhere."""

import torch
from torch import nn

from trainables.pruning.cut import Plan


@torch.no_grad()
def zero_channels(model: nn.Module, plan: Plan) -> None:
    """Set weight, bias, BN scale and BN shift of each channel that goes to 0, in place.

    Its readers then see 0, since every activation between gives 0 for 0.
    """
    for group, stays in plan:
        for member in (*group.producers, *group.norms):
            layer = model.get_submodule(member.name)
            places = member.places(~stays)
            for parameter in layer.parameters(recurse=False):
                parameter[places.to(parameter.device)] = 0
