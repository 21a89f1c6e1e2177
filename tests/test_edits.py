"""What methods change in a network's structure is data: it is stored, read back and refused where it is odd."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from forged_files import forged_file, manifest_of
from pydantic import ValidationError
from tiny_methods import MODEL, TINY, dense, header, images, trained
from torch import nn

from trainables.data.load import normalise
from trainables.errors import PackedFileError, TrialError
from trainables.export import compact
from trainables.export.onnx import to_onnx
from trainables.export.packed import pack, unpack
from trainables.export.program import from_program, to_program
from trainables.measure.cost import ratios
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.models.edits import ConvPart, Edit, NormPart, Part, ReluPart, dumped, install, origins, parsed
from trainables.runtimes import onnxruntime
from trainables.training.loop import predict

PAIR: tuple[Part, ...] = (
    ConvPart(inputs=6, outputs=3, kernel=(3, 1), padding=(1, 0)),
    NormPart(channels=3),
    ReluPart(),
    ConvPart(inputs=3, outputs=6, kernel=(1, 3), padding=(0, 1)),
)
INNER = (ConvPart(inputs=3, outputs=2, kernel=(1, 3), padding=(0, 1)), ConvPart(inputs=2, outputs=6, kernel=(1, 1)))
EDITS = (Edit(place="stages.0.0.conv1", parts=PAIR), Edit(place="stages.0.0.conv1.3", parts=INNER))


def edited() -> Compact:
    """A network of random weights with an edit, and one of a part of it."""
    model = build(MODEL, 1, 10)
    install(model, EDITS)
    initialise(model, torch.Generator().manual_seed(0))
    return Compact(model.eval(), edits=EDITS)


def packed() -> bytes:
    return pack(edited(), header(images()))


def test_edits_survive_their_text() -> None:
    assert parsed(json.dumps(dumped(EDITS))) == EDITS


def test_an_edited_network_is_stored_and_packed_with_its_edits() -> None:
    network, x = edited(), torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    stored = compact.restore(build(MODEL, 1, 10), compact.save(network))
    assert stored.edits == EDITS
    assert torch.equal(stored.model.eval()(x), network.model(x))
    data = packed()
    assert int.from_bytes(data[4:6], "little") == 3
    again, _ = unpack(data)
    assert again.edits == EDITS
    torch.testing.assert_close(again.model(x), network.model(x), rtol=1e-4, atol=1e-5)
    assert list(dict(again.model.named_modules())) == list(dict(network.model.named_modules()))


def test_a_network_without_edits_is_written_as_before() -> None:
    model = build(MODEL, 1, 10)
    initialise(model, torch.Generator().manual_seed(0))
    data = pack(Compact(model), header(images()))
    assert int.from_bytes(data[4:6], "little") == 1
    assert "edits" not in manifest_of(data)
    assert b"edits" not in compact.save(Compact(model))


def test_weights_of_new_layers_are_nan_until_they_are_set_and_draw_no_random_number() -> None:
    model, state = build(MODEL, 1, 10), torch.get_rng_state()
    install(model, EDITS)
    assert torch.equal(torch.get_rng_state(), state)
    assert bool(model.get_submodule("stages.0.0.conv1.0").get_parameter("weight").isnan().all())


def test_a_chain_counts_as_the_layer_whose_place_it_took() -> None:
    names = ["a", "b.c", "b.d.0", "b.d.3.1"]
    assert origins(["a", "b.c", "b.d"], names) == {"a": "a", "b.c": "b.c", "b.d.0": "b.d", "b.d.3.1": "b.d"}
    assert origins(["a"], ["gate"]) == {}
    plain = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3))
    chained = copy.deepcopy(plain)
    install(chained, [Edit(place="0", parts=PAIR)])
    found = ratios(plain, chained, {"0.0": 1}, packed_bytes=100)
    whole, vertical, horizontal = 6 * 6 * 9, 3 * 6 * 3, 6 * 3 * 3
    assert found.payload_compression == 32 * 2 * whole / (vertical + 32 * (horizontal + whole))
    assert found.hidden_compression == found.layer_compression_max == 32 * whole / (vertical + 32 * horizontal)


FAULTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no such place": ([{"place": "stages.9", "parts": [{"kind": "relu"}]}], "replaces 'stages.9', which is no conv"),
    "the whole network": ([{"place": ".", "parts": [{"kind": "relu"}]}], "which is no convolution, linear layer or BN"),
    "a block": ([{"place": "stages.0.0", "parts": [{"kind": "relu"}]}], "which is no convolution, linear layer or BN"),
    "no name": ([{"place": "", "parts": [{"kind": "relu"}]}], "manifest"),
    "no part": ([{"place": "stem.conv", "parts": []}], "manifest"),
    "nine parts": ([{"place": "stem.conv", "parts": [{"kind": "relu"}] * 9}], "manifest"),
    "no such part": ([{"place": "stem.conv", "parts": [{"kind": "lambda"}]}], "manifest"),
    "another key": ([{"place": "stem.conv", "parts": [{"kind": "relu", "code": "import os"}]}], "manifest"),
    "groups": (
        [{"place": "stem.conv", "parts": [{"kind": "conv", "inputs": 4, "outputs": 4, "kernel": [1, 1], "groups": 3}]}],
        "3 groups do not divide 4 inputs",
    ),
    "a larger image": (
        [{"place": "stem.conv", "parts": [{"kind": "conv", "inputs": 1, "outputs": 1, "kernel": [1, 1],
                                           "padding": [1, 1]}]}],
        "would make the image larger",
    ),
    "huge norms": (
        [{"place": f"stages.{stage}.0.conv{n}", "parts": [{"kind": "norm", "channels": 65536}] * 8}
         for stage in range(3) for n in (1, 2)] * 2,
        "the BN layers of the edits have more than|no convolution",
    ),
    "another number of layers": ([{"place": "stem.conv", "parts": [{"kind": "relu"}]}], "layers; resnet8 has"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_edits_that_fit_no_network_are_refused(name: str) -> None:
    edits, told = FAULTS[name]
    with pytest.raises(PackedFileError, match=told):
        unpack(forged_file({"edits": edits}, of=packed()))


def test_too_many_edits_are_refused() -> None:
    many = [{"place": "stem.conv", "parts": [{"kind": "relu"}]}] * 4097
    with pytest.raises(ValidationError, match="at most 4096"):
        parsed(json.dumps(many))
    with pytest.raises(PackedFileError, match="manifest"):
        unpack(forged_file({"edits": many}, of=packed()))


def test_edits_of_many_channels_take_no_memory_before_the_file_is_as_long() -> None:
    wide = {"kind": "conv", "inputs": 65536, "outputs": 65536, "kernel": [64, 64]}
    edits = [{"place": "stages.0.0.conv1", "parts": [wide] * 4}]
    manifest = manifest_of(packed())
    shapes, storage = manifest["shapes"], manifest["storage"]
    place = 2  # of the first layer of the pair: stem's convolution and BN stand before it
    changes = {
        "edits": edits,
        "shapes": [*shapes[:place], *[[65536, 65536]] * 4, *shapes[place + 4 :]],
        "storage": [*storage[:place], *["fp32"] * 4, *storage[place + 4 :]],
    }
    with pytest.raises(PackedFileError, match="ends after"):
        unpack(forged_file(changes, of=packed()))


def test_a_stored_network_with_odd_edits_is_refused() -> None:
    data = compact.save(edited())
    tampered = data.replace(b"stages.0.0.conv1.3", b"stages.0.0.conv1.9")
    with pytest.raises(TrialError, match="cannot be read"):
        compact.restore(build(MODEL, 1, 10), tampered)


EXPORTED = ("decompose", "xnet", "lkam")


@pytest.mark.parametrize("name", EXPORTED)
def test_an_edited_network_is_exported_as_it_is(name: str) -> None:
    data = images()
    model, method = trained(dense(data, MODEL), data, TINY[name])
    finished = method.finalize(model)
    finished.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    expected = predict(finished.model, data.test, data)
    x = normalise(data.test.images, data)
    graph = onnxruntime.load(to_onnx(finished, x[:1], None), 1)
    np.testing.assert_allclose(graph(x.numpy()), expected, rtol=1e-3, atol=1e-3)
    program = from_program(to_program(finished.model.cpu().eval(), x[:1]))
    torch.testing.assert_close(program(x), expected, rtol=1e-3, atol=1e-3)
