"""The packed file: exact sizes, equal outputs, and no crash and no large memory on bad bytes."""

import resource
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forged_files import forged_file, manifest_bytes, manifest_of, signed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from zeroed_channels import zero_channels

from trainables.config import DataConfig, ModelConfig, TrialConfig, resolve
from trainables.data.load import load, normalise
from trainables.errors import CodeError, InfeasibleError, PackedFileError
from trainables.export.coding import TRITS_A_BYTE, Reader, encode, filter_scales, stored_bytes
from trainables.export.packed import PackedHeader, pack, unpack
from trainables.export.skeleton import WithoutMemory, check_one_image
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.pruning.cut import Plan, cut_channels
from trainables.pruning.groups import channel_groups
from trainables.quantize import Activation, binarize, install_activations, ternarize, two_valued

torch.set_num_threads(1)

CODINGS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "filter": (1, lambda w: binarize(w, "filter")),
    "layer": (1, lambda w: binarize(w, "layer")),
    "one": (1, lambda w: binarize(w, "one")),
    "trits_filter": (2, lambda w: ternarize(w, 0.7, "mean", "filter")),
    "trits_layer": (2, lambda w: ternarize(w, 0.7, "mean", "layer")),
    "trits": (2, lambda w: ternarize(w, 0.7, "mean", "one")),
    "two_values": (1, two_valued),
}
"""Bits of a weight, and the weights that each coding is made for."""

ACTIVATIONS = {"sign": Activation("sign"), "ternary": Activation("ternary", 0.3), "int8": Activation("int8", 0.011)}


def dense(block: str, width: int) -> nn.Module:
    """A ResNet-8 with BN as after training."""
    draw = torch.Generator().manual_seed(5)
    model = build(header(block, width).model, 1, 10)
    initialise(model, draw)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, -2, 2), (module.bias, -1, 1)):
                nn.init.uniform_(tensor, low, high, generator=draw)
            nn.init.uniform_(module.get_buffer("running_mean"), -1, 1, generator=draw)
            nn.init.uniform_(module.get_buffer("running_var"), 0.3, 3, generator=draw)
    return model.eval()


def quantize(model: nn.Module, coding: str) -> dict[str, int]:
    """Give every convolution but the first weights of a coding; their bits."""
    bits, quantizer = CODINGS[coding]
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and name != "stem.conv"]
    for name in names:
        weight = model.get_submodule(name).get_parameter("weight")
        weight.data = quantizer(weight.detach()).detach()
    return dict.fromkeys(names, bits)


def plan_of(model: nn.Module) -> Plan:
    groups = channel_groups(model, torch.zeros(1, 1, 8, 8), "all")
    return [(group, torch.arange(group.channels) % 4 != 1) for group in groups]


def network(
    block: str = "standard", coding: str = "filter", width: int = 4, activation: Activation | None = None
) -> Compact:
    """A cut ResNet-8 of few bits between its ends."""
    model = dense(block, width)
    bits = quantize(model, coding)
    cut_channels(model, plan_of(model))
    return with_activations(Compact(model, bits), activation)


def with_activations(found: Compact, activation: Activation | None) -> Compact:
    """The network with `activation` before each convolution in its blocks."""
    if activation is None:
        return found
    names = [name for name, _ in found.model.named_modules() if name.rpartition(".")[2] in ("act1", "act2")]
    activations = dict.fromkeys(names, activation)
    install_activations(found.model, activations)
    return replace(found, activations=activations, input_bits=dict.fromkeys(found.bits, activation.bits))


def header(block: str = "standard", width: int = 4) -> PackedHeader:
    model = ModelConfig.model_validate({"name": "resnet8", "width": width, "block": block})
    return PackedHeader(model=model, channels=1, classes=10, image_size=8, mean=(0.3,), std=(0.4,))


def images() -> Tensor:
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(6))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    config = TrialConfig(data=DataConfig(name="digits"), model=ModelConfig(name="resnet8"))
    data = load(resolve(config, "fp32").data, 0, Path())
    return normalise(data.test.images, data)


def assert_same(found: Tensor, expected: Tensor, exact: bool = True) -> None:
    """Equal up to rounding; where activations are quantized a few images may fall on the other side of a step."""
    close = torch.isclose(found, expected, rtol=1e-4, atol=1e-4).all(1) & (found.argmax(1) == expected.argmax(1))
    assert float(close.float().mean()) >= (1.0 if exact else 0.97)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("block", ["standard", "bn_first"])
def test_unpacked_equals_packed(block: str, coding: str) -> None:
    found = network(block, coding)
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    data = pack(found, header(block))
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.model.state_dict().items())
    again, read = unpack(data)
    assert read == header(block)
    assert not again.model.training
    assert again == replace(found, model=again.model)
    assert_same(again.model(images()), found.model(images()))
    assert pack(again, read) == data
    assert struct.unpack_from("<4sH", data)[1] == (1 if coding in ("filter", "layer", "one") else 2)
    for name in found.bits:
        signs = again.model.get_submodule(name).get_parameter("weight").sign()
        assert torch.equal(signs, found.model.get_submodule(name).get_parameter("weight").sign())


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("coding", ["filter", "trits_filter", "two_values"])
def test_masked_cut_and_reloaded_are_one_network(coding: str, activation: str | None, digits: Tensor) -> None:
    """An activation that is 1 for 0 is masked where it is read: there a channel that goes has weights 0."""
    kind = ACTIVATIONS[activation] if activation else None
    masked, cut = dense("bn_first", 8), dense("bn_first", 8)
    plan = plan_of(masked)
    for model in (masked, cut):
        bits = quantize(model, coding)
    zero_channels(masked, plan)
    for group, stays in plan:
        for member in group.consumers:
            masked.get_submodule(member.name).get_parameter("weight").data[:, member.places(~stays)] = 0
    cut_channels(cut, plan)
    small = with_activations(Compact(cut, bits), kind)
    expected = with_activations(Compact(masked, bits), kind).model(digits)
    again = unpack(pack(small, header("bn_first", 8)))[0]
    assert again == replace(small, model=again.model)
    assert_same(small.model(digits), expected, exact=kind is None)
    assert_same(again.model(digits), expected, exact=kind is None)
    assert pack(again, header("bn_first", 8)) == pack(small, header("bn_first", 8))


FAMILIES: list[dict[str, object]] = [
    {"name": "resnet14", "width": 3},
    {"name": "resnet18", "width": 3, "stem": "imagenet"},
    {"name": "resnet18", "width": 3, "block": "bn_first"},
    {"name": "vgg_small", "width": 3},
    {"name": "mobilenet_v2"},
    {"name": "convnext_tiny"},
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family['name']} {len(family)}")
def test_every_family_is_packed(family: dict[str, object]) -> None:
    config = ModelConfig.model_validate(family)
    model = build(config, 3, 7)
    initialise(model, torch.Generator().manual_seed(0))
    head = PackedHeader(model=config, channels=3, classes=7, image_size=32, mean=(0.3,) * 3, std=(0.4,) * 3)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    data = pack(Compact(model), head)
    torch.testing.assert_close(unpack(data)[0].model(x), model.eval()(x), rtol=1e-4, atol=1e-4)
    assert struct.unpack_from("<4sH", data)[1] == (2 if config.name == "convnext_tiny" else 1)


def norms_and_ends(model: nn.Module) -> int:
    """Numbers of BN layers (scale and shift) and of the first and last layer."""
    modules = dict(model.named_modules())
    norms = sum(2 * m.num_features for m in modules.values() if isinstance(m, nn.BatchNorm2d))
    ends = sum(p.numel() for p in modules["classifier"].parameters())
    return norms + ends + modules["stem.conv"].get_parameter("weight").numel()


FILTERS = 3 * (3 + 6 + 12) - 3
"""Of the convolutions in the blocks after the cut: two in each block and a shortcut in two of them."""


@pytest.mark.parametrize(
    ("block", "coding", "weights_a_byte", "beside"),
    [
        ("standard", "filter", 8, 0),
        ("bn_first", "filter", 8, 3 + 6 + 12),
        ("standard", "trits_filter", 5, 0),
        ("bn_first", "trits_filter", 5, 3 + 6 + 12),
        ("bn_first", "trits_layer", 5, 3),
        ("bn_first", "trits", 5, 0),
        ("standard", "two_values", 8, 2 * FILTERS),
    ],
)
def test_bytes_are_those_of_the_weights_and_little_else(
    block: str, coding: str, weights_a_byte: int, beside: int
) -> None:
    """Scales go into the BN behind in standard blocks; in bn_first ones those of each `conv2` do not."""
    found = network(block, coding)
    counts = [found.model.get_submodule(name).get_parameter("weight").numel() for name in found.bits]
    coded = sum(-(-count // weights_a_byte) for count in counts)
    data = pack(found, header(block))
    assert len(data) - manifest_bytes(data) == 10 + coded + 4 * (norms_and_ends(found.model) + beside) + 8
    assert manifest_bytes(data) < 350


@pytest.mark.parametrize(("kind", "value_bytes"), [("sign", 0), ("ternary", 8), ("int8", 8)])
def test_an_activation_takes_the_bytes_of_its_value(kind: str, value_bytes: int) -> None:
    plain = pack(network("bn_first"), header("bn_first"))
    data = pack(network("bn_first", activation=ACTIVATIONS[kind]), header("bn_first"))
    assert len(data) - manifest_bytes(data) == len(plain) - manifest_bytes(plain) + 6 * value_bytes
    assert manifest_bytes(data) < manifest_bytes(plain) + 90


def test_a_dense_network_is_stored_in_fp32() -> None:
    model = network().model
    data = pack(Compact(model), header())
    floats = sum(p.numel() for p in model.parameters())
    assert len(data) - manifest_bytes(data) == 10 + 4 * floats + 8
    torch.testing.assert_close(unpack(data)[0].model(images()), model(images()), rtol=1e-4, atol=1e-4)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_trits_are_five_a_byte_and_come_back(inputs: int, filters: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    scales = torch.rand(filters, 1, generator=draw) + 0.1
    weight = torch.randint(-1, 2, (filters, inputs), generator=draw) * scales
    kind, data = encode(weight, 2, filter_scales("layer", weight, 2))
    assert torch.equal(Reader(data).weight(kind, weight.shape), weight)
    assert len(data) == stored_bytes(kind, weight.numel(), filters)
    beside = {"trits": 0, "trits_layer": 1, "trits_filter": filters}[kind]
    assert len(data) == -(-weight.numel() // TRITS_A_BYTE) + 4 * beside


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_two_free_values_a_filter_come_back_bit_for_bit(inputs: int, filters: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(2, filters, 1, generator=draw)
    weight = torch.where(torch.rand(filters, inputs, generator=draw) < 0.5, values[0], values[1])
    kind, data = encode(weight, 1, filter_scales("layer", weight, 1))
    assert torch.equal(Reader(data).weight(kind, weight.shape), weight)
    assert len(data) == stored_bytes(kind, weight.numel(), filters)


def test_only_filters_of_few_values_are_stored_as_bits() -> None:
    found = network()
    for bits, told in ((1, "1 bit a weight: it holds more than two values"), (2, "more than three symmetric values")):
        with pytest.raises(ValueError, match=rf"layer stem\.conv cannot be stored with .*{told}"):
            pack(replace(found, bits={"stem.conv": bits}), header())
    with pytest.raises(ValueError, match="with 4 bit"):
        pack(replace(found, bits=dict.fromkeys(found.bits, 4)), header())


@pytest.mark.parametrize("coding", ["filter", "trits_filter", "trits_layer", "two_values"])
def test_a_filter_of_zeros_stays_zero(coding: str) -> None:
    found = network("bn_first", coding)
    found.model.get_submodule("stages.0.0.conv2").get_parameter("weight").data[1] = 0
    data = pack(found, header("bn_first"))
    again, _ = unpack(data)
    assert not again.model.get_submodule("stages.0.0.conv2").get_parameter("weight")[1].any()
    assert pack(again, header("bn_first")) == data


class Odd(nn.Module):
    """Reads values while it runs, runs layers twice, and holds tensors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.conv.register_buffer("seen", torch.tensor([7.0]))
        self.norm = nn.BatchNorm2d(1)
        self.gain = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("table", torch.tensor([[3, 1]]))
        self.group = nn.GroupNorm(1, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(self.norm(self.conv(x)))) * self.gain + self.get_buffer("table")[0, 0]
        return self.head(self.group(x if float(x.detach().mean()) > 0 else -x).flatten(1))


def test_an_untraceable_network_with_tensors_of_its_own_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Odd().eval()
    nn.init.uniform_(model.norm.get_buffer("running_var"), 0.3, 3)
    model.conv.weight.data = binarize(model.conv.weight.detach(), "filter")
    model.get_buffer("conv.seen").fill_(8)
    monkeypatch.setattr("trainables.export.packed.build", lambda *_, **__: Odd())
    found = Compact(model, {"conv": 1})
    data = pack(found, header())
    again, _ = unpack(data)
    assert again == replace(found, model=again.model)
    torch.testing.assert_close(again.model(images()), model(images()))
    assert torch.equal(again.model.get_buffer("table"), torch.tensor([[3, 1]]))
    assert torch.equal(again.model.get_buffer("conv.seen"), torch.tensor([8.0]))
    assert pack(again, header()) == data
    model.get_buffer("table").fill_(2**30 + 1)
    with pytest.raises(InfeasibleError, match=r"table holds torch\.int64 values"):
        pack(found, header())


class Shared(nn.Module):
    """One BN behind two convolutions, one activation after both."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.act1 = nn.ReLU()
        self.two = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.act2 = self.act1
        self.norm = nn.BatchNorm2d(1)
        self.act3 = nn.ReLU()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.norm(self.two(self.act1(self.norm(self.one(x))))))
        return self.head(self.act3(x).flatten(1))


@pytest.mark.parametrize("names", [(), ("act1", "act2"), ("act2",), ("act3",), ("act1", "act3")])
def test_modules_that_run_twice_are_packed(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a BN takes no scales, and the activations of each place are its own."""
    draw = torch.Generator().manual_seed(0)
    model = Shared().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draw)
    for layer in (model.one, model.two):
        layer.weight.data = binarize(layer.weight.detach(), "filter")
    activations = dict.fromkeys(names, ACTIVATIONS["ternary"])
    install_activations(model, activations)
    monkeypatch.setattr("trainables.export.packed.build", lambda *_, **__: Shared())
    found = Compact(model, {"one": 1, "two": 1}, activations=activations)
    again = unpack(pack(found, header()))[0]
    assert again == replace(found, model=again.model)
    torch.testing.assert_close(again.model(images()), model(images()))


def test_code_of_somebody_elses_is_not_run() -> None:
    own = ModelConfig(name="antigravity:fly", code_sha256="0" * 64)
    data = pack(network(), header().model_copy(update={"model": own}))
    with pytest.raises(CodeError, match="antigravity:fly"):
        unpack(data)


PACKED = pack(network(), header())
NEWER = pack(network("bn_first", "trits_filter", activation=ACTIVATIONS["int8"]), header("bn_first"))


@given(st.sampled_from([PACKED, NEWER]), st.data())
@settings(deadline=None)
def test_truncated_files_are_refused(data: bytes, draw: st.DataObject) -> None:
    with pytest.raises(PackedFileError):
        unpack(data[: draw.draw(st.integers(0, len(data) - 1))])


@given(st.sampled_from([PACKED, NEWER]), st.data())
@settings(deadline=None)
def test_changed_files_are_refused(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    changed[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(PackedFileError):
        unpack(bytes(changed))


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PackedFileError, match=r"not a packed file|too short"):
        unpack(data)


def forged(
    changes: Mapping[str, Any], blob_change: int = 0, of: bytes = PACKED, version: int | None = None, first: bytes = b""
) -> bytes:
    return forged_file(changes, blob_change, of=of, version=version, first=first)


def newer(changes: Mapping[str, Any], blob_change: int = 0) -> bytes:
    return forged(changes, blob_change, of=NEWER)


@given(st.integers(1, 2000), st.sampled_from([-1, 1]), st.sampled_from([PACKED, NEWER]))
@settings(deadline=None)
def test_files_of_another_length_are_refused(change: int, sign: int, data: bytes) -> None:
    unpack(forged({}, of=data))
    change = min(change, len(data) - manifest_bytes(data) - 18)
    with pytest.raises(PackedFileError, match="ends after" if sign < 0 else "accounts for"):
        unpack(forged({}, sign * change, of=data))


HEADER = manifest_of(PACKED)["header"]
SHAPES = manifest_of(PACKED)["shapes"]
STORAGE = manifest_of(PACKED)["storage"]
WIDE = {**HEADER, "model": {"name": "resnet18", "width": 1024}, "classes": 100_000}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (forged({"shapes": SHAPES[:-1]}), "manifest"),
        (forged({"shapes": SHAPES[:-1], "storage": STORAGE[:-1]}), "layers; resnet8 has"),
        (forged({"shapes": [[9999, 1], *SHAPES[1:]]}), "channels"),
        (forged({"shapes": [[0, 1], *SHAPES[1:]]}), "channels"),
        (forged({"shapes": [[3], *SHAPES[1:]]}), "channels"),
        (forged({"storage": ["zip"] * len(SHAPES)}), "manifest"),
        (forged({"header": {**HEADER, "model": {"name": "resnet9"}}}), "manifest"),
        (forged({"header": {**HEADER, "model": {"name": "resnet8"}}}), "width"),
        (forged({"header": {**HEADER, "code": "import os"}}), "manifest"),
        (signed(b"no zlib", b""), "manifest"),
        (signed(zlib.compress(b"[" * 100_000), b""), "manifest"),
        (signed(zlib.compress(bytes(50_000_000)), b""), "manifest"),
        (signed(b"", b"", version=5), "has version 5; this release reads up to version 4"),
        (signed(b"", b"", version=0), "has version 0"),
        (forged({}, version=2), "says version 2 and holds what is of version 1"),
        (forged({}, of=NEWER, version=1), "says version 1 and holds what is of version 2"),
        (newer({"input_bits": [1]}), "of \\[1, "),
        (newer({"input_bits": [-1] * len(manifest_of(NEWER)["shapes"])}), "manifest"),
        (newer({"activations": {"int8": [0]}}), "place 0"),
        (newer({"activations": {"sign": [2]}}), "'stem.conv'"),
        (newer({"activations": {"sign": [10_000]}}), "place 10000"),
        (newer({"activations": {"sign": [-1]}}), "place -1"),
        (newer({"activations": {"tanh": [7]}}), "manifest"),
        (newer({"others": 1}), "1 tensors beside its layers; resnet8 has 0"),
    ],
)
def test_files_with_a_right_checksum_and_wrong_contents_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PackedFileError, match=message):
        unpack(data)


def test_a_byte_that_holds_no_trits_is_refused() -> None:
    found = network("bn_first", "trits")
    stem = found.model.get_submodule("stem.conv").get_parameter("weight")
    data = pack(found, header("bn_first"))
    blob = data[10 + manifest_bytes(data) : -8]
    before = 4 * stem.numel() + 8 * stem.shape[0]  # the stem, and the scale and shift of the first BN
    unpack(forged({}, of=data, first=blob[:before] + b"\xf2"))
    with pytest.raises(PackedFileError, match="byte 243 where five trits"):
        unpack(forged({}, of=data, first=blob[:before] + b"\xf3"))


def test_a_file_cannot_ask_for_more_memory_than_its_size_explains() -> None:
    """The dense networks named here have 14.7 GB of weights; one image of 64 x 4096 x 4096 numbers takes 4.3 GB."""
    shapes = shapes_of(WIDE)
    ones = {"header": WIDE, "shapes": [[1] * len(shape) for shape in shapes], "storage": ["fp32"] * len(shapes)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for changes, told in (
        ({**ones, "shapes": shapes}, "ends after"),
        ({**ones, "shapes": shapes, "storage": ["signs"] * len(shapes)}, "ends after"),
        (ones, "ends after|accounts for"),
        (
            {"header": {**HEADER, "channels": 64, "mean": [0] * 64, "std": [1] * 64, "image_size": 4096}},
            "the image takes",
        ),
    ):
        with pytest.raises(PackedFileError, match=told):
            unpack(forged(changes))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


def shapes_of(head: dict[str, Any]) -> list[list[int]]:
    """Of the layers of the dense network, made without memory."""
    with WithoutMemory():
        model = build(ModelConfig.model_validate(head["model"]), head["channels"], head["classes"])
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    return [list(layer.weight.shape[:2]) for layer in layers]


def test_a_layer_whose_output_is_too_large_is_refused_before_it_runs() -> None:
    check_one_image(nn.Sequential(nn.Conv2d(1, 300, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1)), 1, 64)
    with WithoutMemory():
        wide = nn.Linear(512, 1 << 20)
    for layer in (nn.Conv2d(1, 300, 3, padding=1), wide):
        with pytest.raises(PackedFileError, match=r"a layer takes \d+ bytes, at most 268435456"):
            check_one_image(nn.Sequential(layer), 1, 512)


def test_a_value_that_no_activation_has_is_refused() -> None:
    blob = NEWER[10 + manifest_bytes(NEWER) : -8]
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(PackedFileError, match="finite and at least 0"):
            unpack(forged({}, of=NEWER, first=blob[:-8] + struct.pack("<d", value)))


def test_layers_that_do_not_fit_one_another_are_refused() -> None:
    found = network()
    conv = found.model.get_submodule("stages.0.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    conv.weight = nn.Parameter(conv.weight[:, :2])
    with pytest.raises(PackedFileError, match="do not fit"):
        unpack(pack(found, header()))
