"""Blocks of a network calibrated one after the other, so that each gives what the same block of a teacher gives.

No label is needed, and few images: a block has few weights for the many values that each image makes of it. Reference:
Li et al., "BRECQ", ICLR 2021, which argues for blocks between single layers and the whole network.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.errors import InfeasibleError
from trainables.models.modes import modes_kept, watch
from trainables.training.adam import Adam
from trainables.training.schedules import cosine

SMALLEST_SIZE = 1e-4
"""Root mean square that a tensor is taken to have at least, such as biases of 0."""
BATCH = 128
"""Images a pass where nothing is trained."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How long a block is calibrated: steps of Adam on `batch` images each, whose rate falls to 0 (cosine).

    `rate` is a share of each tensor's root mean square.
    """

    steps: int
    rate: float
    batch: int = 32


@dataclass(frozen=True, slots=True)
class Fit:
    """Mean square of a block's error over the images, as a share of what the teacher's gives; before and after."""

    block: str
    before: float
    after: float


def blocks_of(model: nn.Module, layers: Collection[str], example: Tensor) -> tuple[str, ...]:
    """The outermost modules that hold any of `layers`, but chains, which are taken apart; in the order of their calls.

    In a residual network these are the first convolution, each residual block and the last layer.
    """
    names = list(_blocks_in(model, "", layers))
    order: list[str] = []
    watch(model, example, names, lambda name, _: order.append(name))
    return tuple(dict.fromkeys(order))


def _blocks_in(module: nn.Module, path: str, layers: Collection[str]) -> Iterator[str]:
    for name, child in module.named_children():
        place = f"{path}.{name}".lstrip(".")
        if not any(f"{layer}.".startswith(f"{place}.") for layer in layers):
            continue
        chain = isinstance(child, nn.ModuleList) or (
            isinstance(child, nn.Sequential) and type(child).forward is nn.Sequential.forward
        )
        if chain:
            yield from _blocks_in(child, place, layers)
        else:
            yield place


def follow(
    student: nn.Module, teacher: nn.Module, blocks: Sequence[str], images: Tensor, steps: Steps, source: torch.Generator
) -> list[Fit]:
    """Calibrate `blocks` of `student`, in their order, each to give for its own inputs what the teacher's block gives.

    A block of the student reads what the student's blocks before it give, calibrated already, and is compared with what
    the teacher's gives for the teacher's inputs, so that it makes up for their errors. Both networks run in eval mode.
    A block that does not come nearer over all images stays as it was.

    Args:
        student: changed in place.
        teacher: with blocks of the same names.
        blocks: names, from `blocks_of`.
        images: normalised, (N, C, H, W).
        steps: how long.
        source: draws the images of each step.

    Raises:
        InfeasibleError: a block reads something else than one tensor, or runs more than once in a pass.

    """
    fits: list[Fit] = []
    with modes_kept(student), modes_kept(teacher):
        for name in blocks:
            _, targets = _seen(teacher, name, images)
            inputs, _ = _seen(student, name, images)
            fits.append(_fit(name, student.get_submodule(name), (inputs, targets), steps, source))
    return fits


@torch.no_grad()
def _seen(model: nn.Module, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the block reads and gives for `images`."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            msg = f"block {name} does not make one tensor of one tensor, so that it cannot be calibrated alone"
            raise InfeasibleError(f"{msg}; use compress.blocks layer or none")
        calls.append((inputs[0], output))

    parts = images.split(BATCH)
    hook = model.get_submodule(name).register_forward_hook(keep)
    try:
        for part in parts:
            model(part)
    finally:
        hook.remove()
    if len(calls) != len(parts):
        msg = f"block {name} runs {len(calls) / len(parts):g} times in a pass, so that it cannot be calibrated alone"
        raise InfeasibleError(f"{msg}; use compress.blocks none")
    inputs, outputs = zip(*calls, strict=True)
    return torch.cat(inputs), torch.cat(outputs)


def _fit(name: str, block: nn.Module, pairs: tuple[Tensor, Tensor], steps: Steps, source: torch.Generator) -> Fit:
    inputs, targets = pairs
    parameters = [parameter for parameter in block.parameters() if parameter.requires_grad]
    first = [parameter.detach().clone() for parameter in parameters]
    before = _error(block, inputs, targets)
    optimizer = Adam(parameters)
    sizes = [max(float(value.square().mean().sqrt()), SMALLEST_SIZE) for value in first]
    for step in range(steps.steps):
        chosen = torch.randint(len(inputs), (min(steps.batch, len(inputs)),), generator=source).to(inputs.device)
        optimizer.zero_grad()
        (block(inputs[chosen]) - targets[chosen]).square().mean().backward()
        rate = cosine(step, steps.steps, steps.rate)
        optimizer.step([rate * size for size in sizes])
    optimizer.zero_grad()
    after = _error(block, inputs, targets)
    if not after < before:
        with torch.no_grad():
            for parameter, value in zip(parameters, first, strict=True):
                parameter.copy_(value)
        after = before
    return Fit(name, before, after)


@torch.no_grad()
def _error(block: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    parts = zip(inputs.split(BATCH), targets.split(BATCH), strict=True)
    error = sum(float((block(part) - target).double().square().sum()) for part, target in parts)
    return error / max(float(targets.double().square().sum()), 1e-30)
