"""Expander networks: every input and every filter has its edges, and what is stored gathers just these."""

import copy
import math
from typing import Any

import pytest
import torch
import torchvision
from forged_files import forged_file, manifest_bytes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_methods import MODEL, dense, header, images
from torch import Tensor, nn

from trainables.config import ModelConfig
from trainables.errors import InfeasibleError, PackedFileError
from trainables.export.packed import pack, unpack
from trainables.measure.cost import layer_macs, layer_weights
from trainables.method_config import XnetConfig
from trainables.methods.expander import degree, expander, groups
from trainables.methods.xnet import EdgeMask, Xnet
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.models.gather import Gather
from trainables.quantize import Quantized

torch.set_num_threads(1)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=source(1))


def sparse(model: nn.Module, example: Tensor, seed: int = 0, **leaves: object) -> tuple[nn.Module, Xnet]:
    """The model with its graphs, while it trains."""
    changed, method = copy.deepcopy(model), Xnet(XnetConfig.model_validate(leaves))
    method.seed = seed
    method.transform(changed, example)
    return changed.eval(), method


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 20), st.integers(0, 5))
@settings(deadline=None, max_examples=150)
def test_a_graph_is_balanced_on_both_sides(inputs: int, outputs: int, reduction: int, seed: int) -> None:
    assume(outputs >= reduction)
    each = degree(inputs, outputs, reduction)
    assert 1 <= each <= math.ceil(inputs / reduction)
    graph = expander(inputs, outputs, each, source(seed))
    assert graph.shape == (outputs, each)
    assert all(len(set(row)) == each for row in graph.tolist())
    readers = torch.bincount(graph.flatten(), minlength=inputs)
    assert int(readers.min()) >= 1
    assert int(readers.max() - readers.min()) <= 1


def test_filters_too_few_to_read_every_input_are_refused_by_the_layers_name() -> None:
    """Reading more would be another reduction than the study asks for."""
    model = build(ModelConfig(name="resnet8", width=16), 1, 10)
    told = "cannot be made sparse: where each of its 2 blocks of filters reads one in 4 inputs some are read by none"
    with pytest.raises(InfeasibleError, match=f"layer stages.0.0.conv1 {told}; take compress.reduction of at most 2"):
        sparse(model, torch.zeros(1, 1, 8, 8), reduction=4, block=8)
    assert degree(16, 4, 4) == 4


def test_an_independent_draw_would_leave_inputs_without_a_reader() -> None:
    """The trap of the authors' code, which the test above would see."""
    loose = torch.stack([torch.randperm(60, generator=source(o))[:2] for o in range(30)])
    assert int(torch.bincount(loose.flatten(), minlength=60).min()) == 0


def test_graphs_depend_on_the_seed() -> None:
    assert torch.equal(expander(32, 16, 4, source(1)), expander(32, 16, 4, source(1)))
    assert not torch.equal(expander(32, 16, 4, source(1)), expander(32, 16, 4, source(2)))
    with pytest.raises(ValueError, match="4 inputs give no output 5 distinct ones"):
        expander(4, 4, 5, source())


def test_any_input_reaches_any_output_in_few_layers() -> None:
    """The property that the graph is chosen for; a group convolution of the same density never has it."""
    mixed, grouped = torch.eye(64), torch.eye(64)
    for layer in range(3):
        mask = EdgeMask.of(expander(64, 64, 8, source(layer)), torch.empty(64, 64)).mask
        mixed = (mask @ mixed).clamp(max=1)
        grouped = (EdgeMask.of(groups(64, 64, 8), torch.empty(64, 64)).mask @ grouped).clamp(max=1)
    assert float(mixed.mean()) == 1
    assert float(grouped.mean()) == 1 / 8


def test_a_graph_of_groups_is_a_group_convolution() -> None:
    parent = dense(images(), MODEL)
    model, method = sparse(parent, torch.zeros(1, 1, 8, 8), reduction=3, graph="groups", init="parent")
    x = drawn(2, 6, 8, 8)
    twin = model.get_submodule("stages.0.0.conv1")
    expected = twin(x)
    finished = method.finalize(model).model
    conv = finished.get_submodule("stages.0.0.conv1.0")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.groups, conv.weight.shape) == (3, (6, 2, 3, 3))
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, Gather) for module in finished.modules())


def with_hidden_linear_layers() -> nn.Module:
    """The end of a VGG."""
    features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Flatten())
    return nn.Sequential(features, nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.mark.parametrize(("name", "leaves"), [
    ("mobilenet_v2", {"reduction": 2}),
    ("densenet121", {"reduction": 4, "keep": ["first"]}),
    ("hidden linear layers", {"reduction": 16, "layers": ["linear"], "block": 2, "keep": ["last"]}),
])  # fmt: skip
def test_families_are_gathered_to_what_was_trained(name: str, leaves: dict[str, Any]) -> None:
    parent = with_hidden_linear_layers() if " " in name else torchvision.models.get_model(name, num_classes=10)
    x = drawn(2, 3, 32, 32)
    model, method = sparse(parent, x[:1], **leaves)
    with torch.no_grad():
        expected, before = model(x), sum(layer_weights(parent).values())
        finished = method.finalize(model)
        torch.testing.assert_close(finished.model(x), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert sum(layer_weights(finished.model).values()) < 0.75 * before
    assert len(finished.edits) == {"mobilenet_v2": 34, "densenet121": 120}.get(name, 2)


@pytest.mark.parametrize("block", [1, 2])
def test_weights_and_macs_are_those_of_the_edges(block: int) -> None:
    parent = build(ModelConfig(name="resnet8", width=8), 1, 10)
    initialise(parent, source())
    example = torch.zeros(1, 1, 8, 8)
    model, method = sparse(parent, example, reduction=4, block=block)
    finished = method.finalize(model).model
    before, macs = layer_macs(parent, example), layer_macs(finished, example)
    for edit in method._graphs:  # pyright: ignore[reportPrivateUsage]
        assert 4 * macs[f"{edit}.1"] == before[edit]


def test_first_weights_have_the_variance_of_the_edges_that_there_are() -> None:
    parent = build(ModelConfig(name="resnet8", width=64), 1, 10)
    initialise(parent, source())
    model, method = sparse(parent, torch.zeros(1, 1, 8, 8), reduction=8)
    twin = model.get_submodule("stages.2.0.conv2")
    assert isinstance(twin, Quantized)
    edges = twin.quantizer(twin.weight.detach())
    kept = edges[edges != 0]
    assert kept.numel() == 256 * 32 * 9
    assert float(kept.var()) == pytest.approx(2 / (9 * 32), rel=0.02)
    loss = twin(drawn(1, 256, 2, 2)).square().sum()
    loss.backward()
    assert twin.weight.grad is not None
    assert torch.equal(twin.weight.grad != 0, edges != 0)
    assert method.config.init == "random"


def gathered() -> Compact:
    parent = dense(images(), MODEL)
    model, method = sparse(parent, torch.zeros(1, 1, 8, 8), reduction=2)
    return method.finalize(model.eval())


def test_an_index_is_stored_beside_the_weights_and_a_wrong_one_is_refused() -> None:
    found = gathered()
    data = pack(found, header(images()))
    again, _ = unpack(data)
    for name, module in found.model.named_modules():
        if isinstance(module, Gather):
            assert torch.equal(again.model.get_submodule(name).get_buffer("index"), module.get_buffer("index"))
    entries = sum(m.get_buffer("index").numel() for m in found.model.modules() if isinstance(m, Gather))
    blob = data[10 + manifest_bytes(data) : -8]
    wrong = blob[:-entries] + b"\xff" + blob[-entries + 1 :]
    with pytest.raises(PackedFileError, match="gathers channel 255 of 6"):
        unpack(forged_file({}, of=data, first=wrong))
    with pytest.raises(PackedFileError, match="ends after"):
        unpack(forged_file({}, -1, of=data))


@pytest.mark.parametrize(("inputs", "width"), [(1, 1), (2, 1), (256, 1), (257, 2), (65536, 2), (65537, 3)])
def test_an_entry_takes_as_many_bytes_as_it_needs(inputs: int, width: int) -> None:
    assert Gather(inputs, 1).index_bytes == width


def test_what_cannot_be_made_sparse_is_named() -> None:
    parent, example = build(MODEL, 1, 10), torch.zeros(1, 1, 8, 8)
    initialise(parent, source())
    told = r"4 groups \(compress.reduction\) do not divide 6 inputs and 6 outputs; take one of 2, 3, 6$"
    with pytest.raises(InfeasibleError, match=rf"layer stages\.0\.0\.conv1 cannot be made sparse: {told}"):
        sparse(parent, example, reduction=4, graph="groups")
    with pytest.raises(InfeasibleError, match=r"layer stem\.conv cannot .* 1 inputs and 6 outputs; nothing does: take"):
        sparse(parent, example, reduction=4, graph="groups", keep=[])
    with pytest.raises(
        InfeasibleError, match=r"layer stages\.0\.0\.conv1 cannot be made sparse: blocks of 4 do not di"
    ):
        sparse(parent, example, block=4)
    with pytest.raises(InfeasibleError, match="has no layer of one group of the kinds linear outside of first, last"):
        sparse(parent, example, layers=["linear"])
    tokens = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(2), nn.Linear(36, 8), nn.Flatten(), nn.Linear(32, 10))
    with pytest.raises(InfeasibleError, match="layer 2 reads more than one vector an image"):
        sparse(tokens, example, keep=["first"])
