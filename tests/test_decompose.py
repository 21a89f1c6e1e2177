"""Pairs of one-dimensional convolutions: exact where they can be, as small as said, refused where they cannot be."""

import copy
import math

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_methods import MODEL
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import ModelConfig
from trainables.errors import InfeasibleError
from trainables.measure.cost import layer_macs, layer_weights
from trainables.method_config import DecomposeConfig
from trainables.methods.decompose import Decompose
from trainables.models.build import build, initialise
from trainables.models.factors import factors, separable_factors


def network(name: str = "resnet8", width: int = 6) -> nn.Module:
    model = build(ModelConfig(name=name, width=width), 1, 10)
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def decomposed(model: nn.Module, channels: int = 1, **leaves: object) -> tuple[nn.Module, Decompose]:
    changed, method = copy.deepcopy(model), Decompose(DecomposeConfig.model_validate(leaves))
    method.transform(changed, torch.zeros(1, channels, 8, 8))
    return changed.eval(), method


def test_a_pair_of_full_rank_is_the_kernel() -> None:
    weight, x = drawn(4, 5, 3, 3), drawn(2, 5, 8, 8)
    vertical, horizontal = separable_factors(weight, 12)
    pair = F.conv2d(F.conv2d(x, vertical, padding=(1, 0)), horizontal, padding=(0, 1))
    torch.testing.assert_close(pair, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_factors_leave_the_smallest_singular_values(rank: int) -> None:
    matrix = drawn(5, 7)
    first, second = factors(matrix, rank)
    assert (first.shape, second.shape) == ((5, rank), (rank, 7))
    left = torch.linalg.svdvals(matrix)[rank:].square().sum().sqrt() if rank < 5 else torch.tensor(0.0)
    torch.testing.assert_close((matrix - first @ second).norm(), left, rtol=1e-4, atol=1e-5)


def test_pairs_that_begin_with_the_parent_compute_what_it_does() -> None:
    parent, x = network(), drawn(6, 1, 8, 8)
    with torch.no_grad():
        for layer in parent.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                vertical, horizontal = separable_factors(layer.weight, layer.out_channels // 2)
                layer.weight.copy_(torch.einsum("liyx,olzw->oiyw", vertical, horizontal))
    whole, method = decomposed(parent, width_share=0.5, between="nothing", init="parent")
    assert len(method.edits) == 6
    torch.testing.assert_close(whole(x), parent(x), rtol=1e-3, atol=1e-4)
    less, _ = decomposed(parent, width_share=0.25, between="nothing", init="parent")
    assert not torch.allclose(less(x), parent(x), rtol=1e-2, atol=1e-2)


@given(
    st.sampled_from([1, 2, 3, 8]), st.sampled_from([1, 4, 9]), st.sampled_from([(3, 3), (5, 5), (3, 5)]),
    st.sampled_from([(1, 1), (2, 2), (2, 1), (1, 2)]), st.sampled_from([0.25, 0.5, 1.0, 1.5, 4.0]),
)  # fmt: skip
@hypothesis.settings(deadline=None, max_examples=60)
def test_a_layer_becomes_a_pair_exactly_where_that_is_less_work(
    inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int], share: float
) -> None:
    width, (rows, columns), (down, along) = math.ceil(share * outputs), kernel, stride
    one = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding=(rows // 2, columns // 2)))
    pair = nn.Sequential(
        nn.Conv2d(inputs, width, (rows, 1), (down, 1), padding=(rows // 2, 0)),
        nn.Conv2d(width, outputs, (1, columns), (1, along), padding=(0, columns // 2)),
    )
    macs = [sum(layer_macs(model, torch.zeros(1, inputs, 16, 16)).values()) for model in (one, pair)]
    if macs[1] >= macs[0]:
        with pytest.raises(InfeasibleError, match="of more multiply-accumulates than its pair"):
            decomposed(one, inputs, width_share=share, keep=[], between="nothing")
        return
    made, _ = decomposed(one, inputs, width_share=share, keep=[], between="nothing")
    assert sum(layer_macs(made, torch.zeros(1, inputs, 16, 16)).values()) == macs[1]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_weights_and_macs_fall_as_the_formula_says(share: float) -> None:
    parent = network(width=8)
    found, method = decomposed(parent, width_share=share)
    example = torch.zeros(1, 1, 8, 8)
    weights, macs = layer_weights(found), layer_macs(found, example)
    before = layer_macs(parent, example)
    strided = {"stages.1.0.conv1", "stages.2.0.conv1"}
    whole = strided if share == 1 else set[str]()
    every = [f"stages.{s}.0.conv{n}" for s in range(3) for n in (1, 2)]
    assert [edit.place for edit in method.edits] == [name for name in every if name not in whole]
    for edit in method.edits:
        conv = parent.get_submodule(edit.place)
        assert isinstance(conv, nn.Conv2d)
        middle = round(share * conv.out_channels)
        assert weights[f"{edit.place}.0"] == 3 * middle * conv.in_channels
        assert weights[f"{edit.place}.3"] == 3 * middle * conv.out_channels
        side = {"0": 8, "1": 4, "2": 2}[edit.place.split(".")[1]]
        # the first of a pair takes the vertical stride alone
        inner = conv.stride[0] * side * side
        assert macs[f"{edit.place}.0"] == 3 * middle * conv.in_channels * inner
        assert macs[f"{edit.place}.3"] == 3 * middle * conv.out_channels * side * side
    untouched = [name for name in before if name in macs]
    assert set(untouched) - whole == {
        "stem.conv", "stages.1.0.downsample.conv", "stages.2.0.downsample.conv", "classifier"
    }  # fmt: skip
    assert sum(macs.values()) < sum(before.values())
    assert all(macs[name] == before[name] for name in untouched)


@pytest.mark.parametrize("between", ["norm_relu", "relu", "norm", "nothing"])
def test_what_stands_between_is_what_was_asked(between: str) -> None:
    _, method = decomposed(network(), between=between)
    kinds = [part.kind for part in method.edits[0].parts]
    assert kinds == ["conv", *between.replace("nothing", "").split("_"), "conv"] or between == "nothing"
    assert kinds[1:-1] == ([] if between == "nothing" else between.split("_"))


def test_first_weights_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> Tensor:
        model, method = network(), Decompose(DecomposeConfig())
        method.seed = seed
        method.transform(model, torch.zeros(1, 1, 8, 8))
        return model.get_submodule("stages.0.0.conv1.0").get_parameter("weight")

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_a_network_that_has_nothing_to_decompose_is_infeasible() -> None:
    bare = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(
        InfeasibleError, match=r"Sequential has no k x k convolution of one group .* at width_share 1 outside of first"
    ):
        decomposed(bare)
    odd = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(256, 10))
    with pytest.raises(InfeasibleError, match=r"layer 0 cannot be decomposed: padding .* of mode circular"):
        decomposed(odd, width_share=0.25, keep=[])
    same = nn.Conv2d(1, 1, 3, padding=1)
    twice = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), same, same, nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InfeasibleError, match=r"layer 1 shares its weights|layer 1 is used 2 times"):
        decomposed(twice)


def test_the_tiny_network_has_pairs_where_it_should() -> None:
    model = build(MODEL, 1, 10)
    initialise(model, torch.Generator().manual_seed(0))
    found, _ = decomposed(model)
    assert (
        sum(isinstance(layer, nn.Conv2d) for layer in found.modules()) == 9 + 4
    )  # those that halve the image would not be smaller
