"""Chains of linear layers are one layer: whatever the kernel, stride, padding and groups."""

import copy

import pytest
import torch
from pydantic import ValidationError
from tiny_methods import MODEL, dense, images, trained
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.errors import InfeasibleError
from trainables.measure.cost import layer_macs
from trainables.method_config import ExpandConfig
from trainables.methods.expand import Expand
from trainables.methods.expansion import Expanded, convolution_chain, fill_exactly, linear_chain
from trainables.models.build import build, initialise
from trainables.training.loop import predict


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def shuffled(chain: Expanded) -> Expanded:
    """The chain with random weights and biases."""
    source = torch.Generator().manual_seed(2)
    for parameter in chain.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=source)
    return chain


CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 5, 3, padding=1), False),
    "strided": (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), False),
    "no padding": (nn.Conv2d(3, 5, 5), False),
    "dilated": (nn.Conv2d(3, 5, 3, padding=2, dilation=2), False),
    "groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), False),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2), False),
    "5 x 5 stacked": (nn.Conv2d(3, 5, 5, padding=2, stride=2), True),
    "7 x 7 stacked": (nn.Conv2d(3, 5, 7, padding=3, bias=False), True),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_chain_contracts_to_one_convolution(name: str) -> None:
    conv, stacked = CONVOLUTIONS[name]
    chain, x = shuffled(convolution_chain(conv, 3, stacked)), drawn(2, conv.in_channels, 11, 11)
    one = copy.deepcopy(conv)
    one.weight = nn.Parameter(chain.contracted())
    assert one.weight.shape == conv.weight.shape
    if conv.bias is not None:
        one.bias = chain.layers[-1].get_parameter("bias")  # pyright: ignore[reportAttributeAccessIssue]
    expected = chain(x).detach()
    assert expected.shape == conv(x).shape
    torch.testing.assert_close(one(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    if stacked:
        assert [layer.get_parameter("weight").shape[-1] for layer in chain.layers] == [3] * (conv.kernel_size[0] // 2)


def test_a_chain_of_linear_layers_is_one() -> None:
    chain, x = shuffled(linear_chain(nn.Linear(4, 3), 5)), drawn(7, 4)
    bias = chain.layers[-1].get_parameter("bias")
    torch.testing.assert_close(x @ chain.contracted().t() + bias, chain(x), rtol=1e-4, atol=1e-3)
    assert [tuple(layer.get_parameter("weight").shape) for layer in chain.layers] == [(20, 4), (15, 20), (3, 15)]


@pytest.mark.parametrize("name", ["plain", "strided", "groups", "depthwise", "dilated"])
def test_a_chain_begins_as_the_layer_that_it_stands_for(name: str) -> None:
    conv, _ = CONVOLUTIONS[name]
    chain = convolution_chain(conv, 2, stacked=False)
    fill_exactly(chain, conv.weight, conv.groups, torch.Generator().manual_seed(0))
    torch.testing.assert_close(chain.contracted(), conv.weight.detach(), rtol=1e-4, atol=1e-6)
    assert float((chain.layers[1].get_parameter("weight") == 0).float().mean()) == 0


@pytest.mark.parametrize("name", ["resnet8", "vgg_small"])
def test_an_expanded_network_computes_what_its_parent_does_and_costs_more(name: str) -> None:
    parent = build(ModelConfig.model_validate({"name": name, "width": 4}), 1, 10)
    initialise(parent, torch.Generator().manual_seed(0))
    model, method, x = copy.deepcopy(parent), Expand(ExpandConfig(keep=())), drawn(3, 1, 8, 8)
    method.transform(model, x[:1])
    torch.testing.assert_close(model.eval()(x), parent.eval()(x), rtol=1e-3, atol=1e-4)
    assert sum(layer_macs(model, x[:1]).values()) > 4 * sum(layer_macs(parent, x[:1]).values())
    finished = method.finalize(model)
    assert {n: p.shape for n, p in finished.model.named_parameters()} == {
        n: p.shape for n, p in parent.named_parameters()
    }
    assert not any(isinstance(module, Expanded) for module in finished.model.modules())
    torch.testing.assert_close(finished.model(x), parent(x), rtol=1e-3, atol=1e-4)


def test_a_relu_stands_inside_in_the_first_epochs_alone() -> None:
    model = build(MODEL, 1, 10)
    initialise(model, torch.Generator().manual_seed(0))
    method = Expand(ExpandConfig(init="random", nonlinear_share=0.5, epochs=4))
    method.transform(model, torch.zeros(1, 1, 8, 8))
    chain = model.get_submodule("stages.0.0.conv1")
    assert isinstance(chain, Expanded)
    seen = []
    for epoch in range(4):
        method.before_epoch(model, epoch, 4)
        seen.append((chain.nonlinear, method.protected(epoch, 4)))
    assert seen == [(True, True), (True, True), (False, True), (False, False)]
    x = drawn(1, 6, 8, 8)
    linear, doubled = chain(x), chain(2 * x)
    torch.testing.assert_close(doubled, 2 * linear)
    chain.nonlinear = True
    assert not torch.allclose(chain(-x), -chain(x), atol=1e-3)


@pytest.mark.parametrize(("share", "epochs", "expected"), [(0.3, 6, 1), (1, 2, 1), (1, 1, 0), (0.04, 20, 0)])
def test_a_share_of_less_than_an_epoch_has_no_effect_and_no_key_of_its_own(
    share: float, epochs: int, expected: int
) -> None:
    config = ExpandConfig(init="random", nonlinear_share=share, epochs=epochs)
    assert config.nonlinear_epochs() == expected
    assert (config.canonical() == ExpandConfig(init="random", epochs=epochs)) == (expected == 0)
    protected = [Expand(config).protected(epoch, epochs) for epoch in range(epochs)]
    assert protected == [0 < expected >= epoch for epoch in range(epochs)]


def test_nonlinear_first_weights_still_end_as_a_plain_network() -> None:
    """Even where all epochs were to have the ReLU, the last one has none: what is contracted is what was trained."""
    data = images()
    config = ExpandConfig(factor=2, init="random", nonlinear_share=1.0, epochs=2)
    model, method = trained(dense(data, MODEL), data, config)
    before = predict(model, data.test, data)
    torch.testing.assert_close(predict(method.finalize(model).model, data.test, data), before, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_is_refused() -> None:
    for leaves, told in (
        ({"layers": ["stacked"]}, "stacked needs init random"),
        ({"nonlinear_share": 0.5}, "nonlinear_share needs init random"),
        ({"layers": ["conv", "conv"]}, "'conv' is there twice; keep one"),
        ({"layers": []}, "at least 1"),
    ):
        with pytest.raises(ValidationError, match=told):
            ExpandConfig.model_validate(leaves)
    model = build(MODEL, 1, 10)
    with pytest.raises(InfeasibleError, match="ResNet has no layer to expand of the kinds depthwise outside of first"):
        Expand(ExpandConfig(layers=("depthwise",))).transform(model, torch.zeros(1, 1, 8, 8))
