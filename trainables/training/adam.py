"""Adam in plain operations, for the few tensors of a block.

`torch.optim.Adam` gives the same numbers; merely constructing one imports torch's compiler, as
`trainables.training.sgd` tells of SGD.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- w - lr m' / (sqrt(v') + e), m' and v' without bias.

    Each tensor has a rate of its own. Reference: Kingma and Ba, "Adam", ICLR 2015, algorithm 1.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self._steps = 0
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> None:
        """Move the parameters that have a gradient; `rates` has one rate each."""
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in BETAS)
        for parameter, mean, square, rate in zip(self.parameters, self._means, self._squares, rates, strict=True):
            if parameter.grad is None:
                continue
            mean.lerp_(parameter.grad, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(parameter.grad, parameter.grad, value=1 - BETAS[1])
            parameter.addcdiv_(mean, (square / second).sqrt_().add_(EPSILON), value=-rate / first)
