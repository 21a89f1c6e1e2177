"""Blocks that follow a teacher's: which there are, that they come nearer, and the optimizer against torch's."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.errors import InfeasibleError
from trainables.models.build import build, initialise
from trainables.training.adam import Adam
from trainables.training.blockwise import Steps, blocks_of, follow
from trainables.training.randomness import generator

torch.set_num_threads(1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "calibration"))


def network(**leaves: Any) -> nn.Module:
    model = build(ModelConfig.model_validate({"name": "resnet8", "width": 4, **leaves}), 1, 10)
    initialise(model, generator(0, "init"))
    return model


def layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def test_steps_are_those_of_adam() -> None:
    ours = [drawn(3, 2, seed=n).requires_grad_() for n in range(2)]
    theirs = [value.detach().clone().requires_grad_() for value in ours]
    mine, reference = (
        Adam(ours),
        torch.optim.Adam([{"params": [w], "lr": lr} for w, lr in zip(theirs, (0.1, 0.01), strict=True)]),
    )
    for step in range(5):
        for values, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            sum((value - step).pow(4).sum() for value in values).backward()  # pyright: ignore[reportAttributeAccessIssue]
        mine.step([0.1, 0.01])
        reference.step()
    for value, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


def test_the_blocks_of_a_residual_network_are_its_blocks() -> None:
    model = network()
    found = blocks_of(model, layers(model), torch.zeros(1, 1, 8, 8))
    assert found == ("stem.conv", "stages.0.0", "stages.1.0", "stages.2.0", "classifier")
    assert blocks_of(model, ["stages.1.0.conv2"], torch.zeros(1, 1, 8, 8)) == ("stages.1.0",)
    vgg = build(ModelConfig(name="vgg_small", width=4), 1, 10)
    assert set(blocks_of(vgg, layers(vgg), torch.zeros(1, 1, 32, 32))) == set(layers(vgg))


def shaken(model: nn.Module, size: float = 0.2) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for number, parameter in enumerate(other.parameters()):
            parameter.add_(size * parameter.square().mean().sqrt() * drawn(*parameter.shape, seed=number))
    return other


@pytest.mark.parametrize("block", ["standard", "bn_first"])
def test_every_block_comes_nearer_and_so_does_the_network(block: str) -> None:
    teacher = network(block=block).eval()
    student = shaken(teacher).train()
    statistics = {name: value.clone() for name, value in student.named_buffers()}
    images = drawn(64, 1, 8, 8)
    with torch.no_grad():
        before = (student.eval()(images) - teacher(images)).square().mean()
    student.train()
    blocks = blocks_of(teacher, layers(teacher), images[:1])
    fits = follow(student, teacher, blocks, images, Steps(60, 0.01), generator(0, "method"))
    assert [fit.block for fit in fits] == list(blocks)
    assert all(fit.after < fit.before for fit in fits)
    assert all(module.training for module in student.modules())
    assert all(torch.equal(value, statistics[name]) for name, value in student.named_buffers())
    with torch.no_grad():
        after = (student.eval()(images) - teacher(images)).square().mean()
    assert after < before / 4


def test_a_block_makes_up_for_errors_before_it() -> None:
    """The second layer can undo what the first does wrong, which it sees as it reads the student's own first layer."""
    teacher = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    nn.init.orthogonal_(teacher.get_parameter("0.weight"), generator=generator(0, "init"))
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.get_parameter("0.weight").mul_(2)
    for parameter in student[0].parameters():
        parameter.requires_grad_(False)
    images = drawn(200, 6)
    (fit,) = follow(student, teacher, ["1"], images, Steps(400, 0.02, batch=64), generator(0, "method"))
    assert fit.after < 0.01 * fit.before


def test_a_block_that_does_not_come_nearer_stays_as_it_was() -> None:
    teacher = nn.Sequential(nn.Linear(6, 3))
    student = copy.deepcopy(teacher)
    (fit,) = follow(student, teacher, ["0"], drawn(40, 6), Steps(10, 0.5), generator(0, "method"))
    assert (fit.before, fit.after) == (0, 0)
    assert torch.equal(student.get_parameter("0.weight"), teacher.get_parameter("0.weight"))


def test_the_same_draw_gives_the_same_network() -> None:
    teacher = network().eval()
    found: list[Tensor] = []
    for _ in range(2):
        student = shaken(teacher)
        follow(student, teacher, ["stages.1.0"], drawn(32, 1, 8, 8), Steps(5, 0.01), generator(0, "method"))
        found.append(student.get_submodule("stages.1.0.conv1").get_parameter("weight").detach())
    assert torch.equal(*found)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Bilinear(4, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x)


@pytest.mark.parametrize(
    ("model", "told"),
    [(Twice(), "block inner runs 2 times in a pass"), (Pair(), "block inner does not make one tensor of one tensor")],
)
def test_blocks_that_cannot_be_calibrated_alone_are_refused(model: nn.Module, told: str) -> None:
    with pytest.raises(InfeasibleError, match=told):
        follow(model, copy.deepcopy(model), ["inner"], drawn(8, 4), Steps(2, 0.01), generator(0, "method"))
