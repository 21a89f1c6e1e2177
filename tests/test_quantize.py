"""Weights and activations of few bits against their formulas."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn

from trainables.quantize import (
    Activation,
    IntActivation,
    QuantizedConv2d,
    QuantizedLinear,
    Scale,
    ThresholdOf,
    WeightQuantizer,
    activation_module,
    binarize,
    binary_scale,
    near_zero,
    plain_layer,
    quantized_twin,
    ternarize,
    two_valued,
    two_values,
)

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


QUANTIZERS: dict[str, WeightQuantizer] = {
    "filter": partial(binarize, scale="filter"),
    "layer": partial(binarize, scale="layer"),
    "one": partial(binarize, scale="one"),
    "ternary": partial(ternarize, threshold=0.7, of="mean", scale="filter"),
    "two_valued": two_valued,
}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_layers_run_with_quantized_weights_and_share_the_latent_ones(place: int, kind: str) -> None:
    layer, x = layers()[place]
    twin = quantized_twin(layer, QUANTIZERS[kind])
    assert isinstance(twin, QuantizedConv2d if place == 0 else QuantizedLinear)
    assert twin.weight is layer.weight
    assert twin.bias is layer.bias
    latent = layer.weight.detach().clone()
    got = twin(x)
    layer.weight.data = QUANTIZERS[kind](latent)
    assert torch.equal(got, layer(x))
    layer.weight.data = latent
    plain = plain_layer(twin)
    assert type(plain) in (nn.Conv2d, nn.Linear)
    assert torch.equal(plain(x), got)


def test_making_quantized_layers_draws_no_random_number() -> None:
    layer = nn.Conv2d(2, 2, 3)
    before = torch.get_rng_state()
    plain_layer(quantized_twin(layer, QUANTIZERS["filter"]))
    assert torch.equal(torch.get_rng_state(), before)


def test_scale_shapes_broadcast() -> None:
    w = torch.ones(3, 2, 1, 1)
    assert binary_scale(w, "filter").shape == (3, 1, 1, 1)
    assert binary_scale(w, "layer").shape == (1, 1, 1, 1)
    assert binary_scale(w, "one").shape == (1, 1, 1, 1)


@given(weights, st.floats(0.05, 1.5), st.sampled_from(("mean", "max")), scales)
def test_ternary_weights_follow_their_formula(values: np.ndarray, t: float, of: ThresholdOf, scale: Scale) -> None:
    magnitude = np.abs(values).astype(np.float32)
    near = float(near_zero(torch.from_numpy(values), t, of))
    far = magnitude >= np.float32(near)
    expected = np.zeros_like(values)
    for place, row in enumerate(values):
        own = magnitude[place][far[place]] if scale == "filter" else magnitude[far]
        size = 1.0 if scale == "one" else float(own.mean()) if own.size else 0.0
        expected[place] = np.where(row >= 0, size, -size) * far[place]
    got = ternarize(torch.from_numpy(values), t, of, scale).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_a_ternary_filter_of_zeros_alone_is_zero() -> None:
    w = torch.tensor([[0.1, -0.1], [5.0, 5.0]])
    assert ternarize(w, 1.0, "mean", "filter").tolist() == [[0.0, 0.0], [5.0, 5.0]]
    assert not bool(ternarize(torch.zeros(2, 3), 0.7, "mean", "filter").any())


def test_the_scale_of_ternary_weights_is_the_best_for_its_zeros() -> None:
    w = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    got = ternarize(w, 0.7, "mean", "filter")
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert (w - factor * got).square().sum() > (w - got).square().sum()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_every_quantizer_passes_the_gradient_straight_through(kind: str) -> None:
    w = torch.tensor([[0.5, -1.0, 1.0, 1.5, -2.0, 0.01]], requires_grad=True)
    QUANTIZERS[kind](w).backward(torch.arange(1.0, 7.0).view(1, -1))
    assert w.grad is not None
    assert w.grad.tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0, 6.0]]


short_filters = arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(2, 7)), elements=st.floats(-4, 4, width=32))


@given(short_filters)
def test_two_values_are_the_best_of_all_partitions(values: np.ndarray) -> None:
    w = torch.from_numpy(values)
    error = (w - two_valued(w)).double().square().sum(1)
    n = values.shape[1]
    for row, found in zip(values.astype(np.float64), error.tolist(), strict=True):
        best = min(_partition_error(row, np.array(e)) for e in product((False, True), repeat=n) if 0 < sum(e) < n)
        assert found == pytest.approx(best, abs=1e-4)


def _partition_error(row: np.ndarray, upper: np.ndarray) -> float:
    alpha, beta = row[upper].mean(), row[~upper].mean()
    return float(((row - np.where(upper, alpha, beta)) ** 2).sum())


@given(weights)
def test_two_free_values_are_never_worse_than_a_scaled_sign(values: np.ndarray) -> None:
    w = torch.from_numpy(values)
    ours, sign = ((w - q).square().flatten(1).sum(1) for q in (two_valued(w), binarize(w, "filter")))
    assert bool((ours <= sign + 1e-4).all())
    assert all(len(row.unique()) <= 2 for row in two_valued(w).flatten(1))


def test_two_values_by_hand() -> None:
    upper, alpha, beta = two_values(torch.tensor([[5.0, 1.0, 3.0, -1.0], [2.0, 2.0, 2.0, 2.0]]))
    assert upper[0].tolist() == [True, False, True, False]
    assert (float(alpha[0]), float(beta[0])) == (4.0, 0.0)
    assert float(alpha[1]) == float(beta[1]) == 2.0
    assert two_valued(torch.tensor([[3.0], [-2.0]])).tolist() == [[3.0], [-2.0]]


ACTIVATIONS = {"sign": Activation("sign"), "ternary": Activation("ternary", 0.5), "int8": Activation("int8", 0.01)}
VALUES = {
    "sign": [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0],
    "ternary": [-1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
    "int8": [0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 2.55],
}
GRADIENTS = {
    "sign": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    "ternary": [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    "int8": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0],
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_and_their_gradients_by_hand(kind: str) -> None:
    x = torch.tensor([-3.0, -0.5, -0.25, 0.0, 0.2519, 0.5, 3.0], requires_grad=True)
    y = activation_module(ACTIVATIONS[kind])(x)
    torch.testing.assert_close(y, torch.tensor(VALUES[kind]))
    y.backward(torch.ones(7))
    assert x.grad is not None
    assert x.grad.tolist() == GRADIENTS[kind]


def test_an_uncalibrated_int8_activation_is_a_relu() -> None:
    module, x = IntActivation(), torch.linspace(-1, 1, 9)
    assert torch.equal(module(x), torch.relu(x))
    module.cover(1.0)
    assert float((module(x) - torch.relu(x)).abs().max()) <= 0.5 / 255 + 1e-7


def test_activations_keep_the_kind_of_number() -> None:
    for activation in ACTIVATIONS.values():
        assert activation_module(activation)(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16
