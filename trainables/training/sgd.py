"""SGD with Nesterov momentum on torch's fused kernel.

`torch.optim.SGD` gives the same numbers; merely constructing one imports torch's compiler (900 modules, 1.5 to 4 s),
which every worker process would pay.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Sgd:
    """v <- m v + (g + d w);  w <- w - lr (g + d w + m v), with v = 0 at first.

    The Nesterov form of Sutskever et al., ICML 2013, as torch.optim.SGD has it. Parameters of one dimension or none
    (BN, biases, scales) are not decayed: d = 0.

    Args:
        parameters: those that ask for no gradient are left alone.
        momentum: m; 0 is plain gradient descent.
        weight_decay: d.
        before: an optimizer of the same network; v of the parameters that it moved goes on from there.

    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        momentum: float,
        weight_decay: float,
        before: "Sgd | None" = None,
    ) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        groups = ([p for p in trained if p.ndim > 1], weight_decay), ([p for p in trained if p.ndim <= 1], 0.0)
        known = {} if before is None else before.speeds()
        self.groups = [(group, [_speed(p, known) for p in group], decay) for group, decay in groups]
        self.momentum = momentum

    def speeds(self) -> dict[nn.Parameter, Tensor]:
        """The v of each parameter."""
        return {p: v for group, velocities, _ in self.groups for p, v in zip(group, velocities, strict=True)}

    def moves(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether it moves just those of `parameters` that ask for a gradient."""
        return {p for p in parameters if p.requires_grad} == self.speeds().keys()

    @property
    def velocities(self) -> list[Tensor]:
        """The v of each trained parameter, themselves; none without momentum, which leaves them 0."""
        return [velocity for _, velocities, _ in self.groups for velocity in velocities if self.momentum > 0]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameters, _, _ in self.groups:
            for parameter in parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """Move the parameters that have a gradient; `lr` may be a scalar tensor on their device."""
        for parameters, velocities, decay in self.groups:
            triples = [(p, p.grad, v) for p, v in zip(parameters, velocities, strict=True) if p.grad is not None]
            if triples:
                moved, gradients, speeds = (list(column) for column in zip(*triples, strict=True))
                self._update(moved, gradients, speeds, lr, decay)

    def _update(
        self, moved: list[Tensor], gradients: list[Tensor], speeds: list[Tensor], lr: float | Tensor, decay: float
    ) -> None:
        torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
            moved,
            gradients,
            speeds if self.momentum > 0 else [],
            weight_decay=decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.momentum > 0,
            maximize=False,
            is_first_step=False,
        )


def _speed(parameter: nn.Parameter, known: dict[nn.Parameter, Tensor]) -> Tensor:
    speed = known.get(parameter)
    return torch.zeros_like(parameter) if speed is None else speed
