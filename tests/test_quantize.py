"""One-bit weights against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn

from trainables.quantize import BinaryConv2d, BinaryLinear, Scale, binarize, binary_scale, binary_twin, plain_layer

weights = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-4, 4, width=32, allow_subnormal=False),
)
scales = st.sampled_from(("filter", "layer", "one"))


@given(weights, scales)
def test_each_weight_is_its_sign_times_the_mean_magnitude(values: np.ndarray, scale: Scale) -> None:
    magnitude = {
        "filter": np.abs(values).reshape(len(values), -1).mean(1).reshape(-1, *[1] * (values.ndim - 1)),
        "layer": np.abs(values).mean(),
        "one": 1.0,
    }[scale]
    expected = np.where(values >= 0, 1, -1) * magnitude
    np.testing.assert_allclose(binarize(torch.from_numpy(values), scale).numpy(), expected, rtol=1e-5, atol=1e-7)


@given(weights)
def test_a_filter_has_at_most_two_values(values: np.ndarray) -> None:
    for row in binarize(torch.from_numpy(values), "filter").flatten(1):
        assert len(row.unique()) <= 2


def test_the_sign_of_zero_is_plus_also_for_minus_zero() -> None:
    w = torch.tensor([[0.0, -0.0, -3.0]])
    assert binarize(w, "filter").tolist() == [[1.0, 1.0, -1.0]]
    assert binarize(w, "one").tolist() == [[1.0, 1.0, -1.0]]


@pytest.mark.parametrize("scale", ["filter", "layer", "one"])
def test_gradient_is_straight_through_where_the_weight_is_at_most_one(scale: Scale) -> None:
    w = torch.tensor([[0.5, -1.0, 1.0, 1.5, -2.0, 0.0]], requires_grad=True)
    upstream = torch.arange(1.0, 7.0).view(1, -1)
    binarize(w, scale).backward(upstream)
    assert w.grad is not None
    assert w.grad.tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0, 6.0]]


def test_the_mean_magnitude_is_the_best_scale_of_a_filter() -> None:
    w = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    best = (w - binarize(w, "filter")).square().sum()
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert (w - factor * binarize(w, "filter")).square().sum() > best


def layers() -> list[tuple[nn.Conv2d | nn.Linear, Tensor]]:
    source = torch.Generator().manual_seed(1)
    conv = nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2, bias=True)
    return [(conv, torch.randn(2, 4, 7, 7, generator=source)), (nn.Linear(5, 3), torch.randn(2, 5, generator=source))]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("scale", ["filter", "layer", "one"])
def test_layers_run_with_binary_weights_and_share_the_latent_ones(place: int, scale: Scale) -> None:
    layer, x = layers()[place]
    twin = binary_twin(layer, scale)
    assert isinstance(twin, BinaryConv2d | BinaryLinear)
    assert twin.weight is layer.weight
    assert twin.bias is layer.bias
    latent = layer.weight.detach().clone()
    got = twin(x)
    layer.weight.data = binarize(latent, scale)
    assert torch.equal(got, layer(x))
    layer.weight.data = latent
    plain = plain_layer(twin)
    assert type(plain) in (nn.Conv2d, nn.Linear)
    assert torch.equal(plain(x), got)


def test_making_binary_layers_draws_no_random_number() -> None:
    layer = nn.Conv2d(2, 2, 3)
    before = torch.get_rng_state()
    plain_layer(binary_twin(layer, "filter"))
    assert torch.equal(torch.get_rng_state(), before)


def test_scale_shapes_broadcast() -> None:
    w = torch.ones(3, 2, 1, 1)
    assert binary_scale(w, "filter").shape == (3, 1, 1, 1)
    assert binary_scale(w, "layer").shape == (1, 1, 1, 1)
    assert binary_scale(w, "one").shape == (1, 1, 1, 1)
