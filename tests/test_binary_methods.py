"""Distribution-aware and hybrid binarization: optima by brute force, gradients by formula, what is chosen and why."""

import copy
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_methods import BN_FIRST, dense, images, trained
from torch import Tensor, nn

from trainables.config import BinaryConfig, ModelConfig
from trainables.data.load import normalise
from trainables.errors import InfeasibleError
from trainables.measure.cost import cost
from trainables.method_config import DabnConfig, HybridConfig
from trainables.methods.dabn import Dabn, dual_valued
from trainables.methods.hybrid import Hybrid, binarization_error
from trainables.methods.partition import clusters, highest
from trainables.models.build import build, initialise
from trainables.quantize import Quantized, binarize, two_values
from trainables.training.loop import predict

torch.set_num_threads(1)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    model = build(BN_FIRST, 1, 10)
    initialise(model, torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("seed", range(5))
def test_the_two_values_are_the_best_of_all_two_valued_filters(seed: int) -> None:
    w = torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    best = float("inf")
    for signs in product((False, True), repeat=9):
        upper = torch.tensor(signs)
        values = torch.where(
            upper, w[upper].mean() if upper.any() else 0.0, w[~upper].mean() if (~upper).any() else 0.0
        )
        best = min(best, float((w - values).square().sum()))
    upper, alpha, beta = two_values(w[None])
    found = float((w - torch.where(upper, alpha, beta)[0]).square().sum())
    assert found == pytest.approx(best, rel=1e-9)
    scaled = float((w - binarize(w[None], "filter")[0]).square().sum())
    assert found < scaled


def test_the_gradient_is_that_of_the_formula() -> None:
    w = (0.8 * drawn(3, 4, 2, 2)).requires_grad_()
    dual_valued(w).backward(after := drawn(3, 4, 2, 2))
    upper, alpha, beta = two_values(w.detach())
    slope, size = torch.empty(3, 16), torch.empty(3, 1)
    for o in range(3):
        above = int(upper[o].sum())
        for place in range(16):
            value, count = (alpha[o, 0], above) if upper[o, place] else (beta[o, 0], 16 - above)
            inside = abs(float(w.detach()[o].flatten()[place])) < 1
            slope[o, place] = abs(float(value)) * inside + 1 / count
        size[o] = (above * abs(float(alpha[o])) + (16 - above) * abs(float(beta[o]))) / 16
    gradient = after * (slope / slope.mean(1, keepdim=True) / size).view(3, 4, 2, 2)
    torch.testing.assert_close(w.grad, gradient - gradient.mean(1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_filter_of_zeros_gets_a_finite_gradient_and_one_of_a_single_input_its_own() -> None:
    w = torch.zeros(2, 3, 1, 1, requires_grad=True)
    dual_valued(w).backward(drawn(2, 3, 1, 1))
    assert w.grad is not None
    assert bool(w.grad.isfinite().all())
    assert float(w.grad.abs().max()) > 0
    single = drawn(2, 1, 2, 2).requires_grad_()
    dual_valued(single).backward(torch.ones(2, 1, 2, 2))
    assert single.grad is not None
    assert float(single.grad.min()) > 0


def test_latent_weights_are_centred_over_their_inputs_and_clamped() -> None:
    model, method = network(), Dabn(DabnConfig())
    method.transform(model, torch.zeros(1, 1, 8, 8))
    twin = model.get_submodule("stages.0.0.conv1")
    assert isinstance(twin, Quantized)
    with torch.no_grad():
        twin.weight.mul_(10).add_(1)
    method.after_step(model, 0.1)
    assert float(twin.weight.detach().abs().max()) == 1
    with torch.no_grad():
        twin.weight.mul_(0.01).add_(0.1)
    method.after_step(model, 0.1)
    assert float(twin.weight.detach().mean(1).abs().max()) < 1e-6


def test_dabn_keeps_the_first_layer_and_the_inputs_of_the_last() -> None:
    model, method = network(), Dabn(DabnConfig())
    method.transform(model, torch.zeros(1, 1, 8, 8))
    finished = method.finalize(model)
    assert "stem.conv" not in finished.bits
    assert finished.bits["classifier"] == 1
    assert "classifier" not in finished.input_bits
    assert set(finished.input_bits) == set(finished.bits) - {"classifier"}
    weight = finished.model.get_submodule("classifier").get_parameter("weight").detach()
    assert all(len(row.unique()) == 2 for row in weight)


def test_two_free_values_are_closer_to_the_weights_than_one_scale_at_the_same_bits() -> None:
    parent = dense(images(), BN_FIRST)
    for layer in parent.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight[0].numel() > 9:
            w = layer.weight.detach()
            assert (w - dual_valued(w)).square().sum() < (w - binarize(w, "filter")).square().sum()


def test_the_baseline_of_both_has_their_bits() -> None:
    assert DabnConfig(epochs=7).same_bits() == BinaryConfig(
        epochs=7, activations="sign", full_precision=("first", "last")
    )
    assert DabnConfig(activations="float").same_bits() == BinaryConfig(full_precision=("first",))
    assert HybridConfig().same_bits() == BinaryConfig(activations="sign", full_precision=("first", "last"))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=7), st.data())
@settings(deadline=None, max_examples=60)
def test_clusters_have_the_least_sum_of_squares(numbers: list[int], draw: st.DataObject) -> None:
    values = [float(number) for number in numbers]
    count = draw.draw(st.integers(1, len(values)))

    def spread(labels: tuple[int, ...]) -> float:
        parts = [[v for v, label in zip(values, labels, strict=True) if label == c] for c in range(count)]
        return sum(sum((v - sum(part) / len(part)) ** 2 for v in part) for part in parts if part)

    found = clusters(values, count)
    assert set(found) == set(range(count))
    assert spread(tuple(found)) == pytest.approx(min(map(spread, product(range(count), repeat=len(values)))), abs=1e-9)
    for one, other in product(range(len(values)), repeat=2):
        assert values[one] >= values[other] or found[one] <= found[other]


def test_the_highest_cluster_is_taken_once_it_is_small_enough() -> None:
    metric = [0.1, 0.12, 0.5, 0.55, 0.9]
    assert highest(metric, 1.0) == [True] * 5
    assert highest(metric, 0.6) == [False, False, True, True, True]
    assert highest(metric, 0.4) == [False, False, False, False, True]
    assert highest(metric, 0.1) == [False] * 5
    with pytest.raises(ValueError, match="5 values make no 6 clusters"):
        clusters(metric, 6)


def test_the_error_of_signs_is_zero_for_equal_magnitudes_and_follows_its_formula() -> None:
    assert binarization_error(torch.tensor([[2.0, -2.0], [0.5, 0.5]])) == pytest.approx(0)
    assert binarization_error(torch.zeros(2, 3)) == 0
    x = drawn(4, 3, 5, 5)
    expected = [float((one - one.abs().mean() * one.sign()).square().sum() / one.square().sum()) for one in x.double()]
    assert binarization_error(x) == pytest.approx(sum(expected) / 4)


@pytest.mark.parametrize(("ratio", "full"), [(0.0, 0), (0.2, 1), (1.0, 6)])
def test_the_ratio_goes_from_all_binary_to_weight_binary(ratio: float, full: int) -> None:
    data = images()
    model, method = copy.deepcopy(dense(data, BN_FIRST)), Hybrid(HybridConfig(ratio=ratio, binary_share=0.5))
    method.transform(model, normalise(data.train.images[:1], data))
    method.calibrate(model, normalise(data.train.images[:50], data))
    for epoch in range(4):
        method.before_epoch(model, epoch, 4)
    before = predict(model, data.test, data)
    finished = method.finalize(model)
    assert 6 - len(finished.activations) == full
    assert torch.equal(predict(finished.model, data.test, data), before)
    binary = set(finished.input_bits)
    readers = {f"stages.{s}.0.conv{n}" for s in range(3) for n in (1, 2)} | {
        f"stages.{s}.0.downsample.conv" for s in (1, 2)
    }
    assert binary == readers if full == 0 else binary < readers
    assert set(finished.bits) == readers | {"classifier"}


def test_fewer_signs_cost_more_bit_operations() -> None:
    data, bops = images(), []
    for ratio in (0.0, 0.5, 1.0):
        model, method = trained(dense(data, BN_FIRST), data, HybridConfig(ratio=ratio, epochs=2))
        finished = method.finalize(model)
        bops.append(cost(finished.model, finished.bits, torch.zeros(1, 1, 8, 8), finished.input_bits).bops)
    assert bops == sorted(bops)
    assert bops[0] < bops[1] < bops[2]


def test_the_metric_weighs_the_error_and_the_work_that_reads_it() -> None:
    data = images()
    model, method = copy.deepcopy(dense(data, BN_FIRST)), Hybrid(HybridConfig(cost_weight=0.5))
    method.transform(model, normalise(data.train.images[:1], data))
    method.calibrate(model, normalise(data.train.images[:50], data))
    with_cost = method.metric(model)
    plain = Hybrid(HybridConfig(cost_weight=0.0))
    other = copy.deepcopy(dense(data, BN_FIRST))
    plain.transform(other, normalise(data.train.images[:1], data))
    plain.calibrate(other, normalise(data.train.images[:50], data))
    errors = plain.metric(other)
    macs = {"0.act1": 8 * 8, "0.act2": 8 * 8}
    first, last = (with_cost[place] - errors[place] for place in (0, 5))
    # conv1 of stage 0: 6 x 6 x 9 weights at 64 places; conv2 of stage 2: 24 x 24 x 9 at 4
    work = [6 * 6 * 9 * macs["0.act1"], (6 * 12 * 9 + 6 * 12) * 16]
    assert first == pytest.approx(0.5 * min(24 * 24 * 9 * 4, *work, 12 * 24 * (9 + 1) * 4) / work[0])
    assert last == pytest.approx(0.5 * min(24 * 24 * 9 * 4, *work, 12 * 24 * (9 + 1) * 4) / (24 * 24 * 9 * 4))


def test_blocks_that_sum_before_the_activation_are_refused_by_name() -> None:
    model = build(ModelConfig(name="resnet8", width=6), 1, 10)
    for method in (Dabn(DabnConfig()), Hybrid(HybridConfig())):
        with pytest.raises(InfeasibleError, match=r"activation .* feeds add.*take model\.block bn_first"):
            method.transform(copy.deepcopy(model), torch.zeros(1, 1, 8, 8))
