"""The packed file and the stored network: exact sizes, equal outputs, and no crash on bad bytes."""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainables.config import ModelConfig
from trainables.errors import PackedFileError
from trainables.export.packed import PackedHeader, pack, unpack
from trainables.models.build import build, initialise
from trainables.pruning.cut import cut_channels
from trainables.pruning.groups import channel_groups
from trainables.quantize import binarize

torch.set_num_threads(1)


def network(block: str = "standard", scale: str = "filter", width: int = 4) -> tuple[nn.Module, dict[str, int]]:
    """A cut ResNet-8 with 1-bit convolutions between its ends and BN as after training."""
    draw = torch.Generator().manual_seed(5)
    config = ModelConfig.model_validate({"name": "resnet8", "width": width, "block": block})
    model = build(config, 1, 10)
    initialise(model, draw)
    bits: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, -2, 2), (module.bias, -1, 1)):
                nn.init.uniform_(tensor, low, high, generator=draw)
            nn.init.uniform_(module.get_buffer("running_mean"), -1, 1, generator=draw)
            nn.init.uniform_(module.get_buffer("running_var"), 0.3, 3, generator=draw)
        elif isinstance(module, nn.Conv2d) and name != "stem.conv":
            module.weight.data = binarize(module.weight.detach(), scale)  # pyright: ignore[reportArgumentType]
            bits[name] = 1
    groups = channel_groups(model, torch.zeros(1, 1, 8, 8), "all")
    cut_channels(model, [(group, torch.arange(group.channels) % 4 != 1) for group in groups])
    return model.eval(), bits


def header(block: str = "standard", width: int = 4) -> PackedHeader:
    model = ModelConfig.model_validate({"name": "resnet8", "width": width, "block": block})
    return PackedHeader(model=model, channels=1, classes=10, image_size=8, mean=(0.3,), std=(0.4,))


def images() -> torch.Tensor:
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("scale", ["filter", "layer", "one"])
@pytest.mark.parametrize("block", ["standard", "bn_first"])
def test_unpacked_equals_packed(block: str, scale: str) -> None:
    model, bits = network(block, scale)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = pack(model, bits, header(block))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again, read = unpack(data)
    assert read == header(block)
    assert not again.training
    torch.testing.assert_close(again(images()), model(images()), rtol=1e-4, atol=1e-4)
    assert torch.equal(again(images()).argmax(1), model(images()).argmax(1))
    assert pack(again, bits, read) == data
    for name in bits:
        signs = again.get_submodule(name).get_parameter("weight") > 0
        assert torch.equal(signs, model.get_submodule(name).get_parameter("weight") > 0)


FAMILIES: list[dict[str, object]] = [
    {"name": "resnet14", "width": 3},
    {"name": "resnet18", "width": 3, "stem": "imagenet"},
    {"name": "resnet18", "width": 3, "block": "bn_first"},
    {"name": "vgg_small", "width": 3},
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family['name']} {len(family)}")
def test_every_family_is_packed(family: dict[str, object]) -> None:
    config = ModelConfig.model_validate(family)
    model = build(config, 3, 7)
    initialise(model, torch.Generator().manual_seed(0))
    head = PackedHeader(model=config, channels=3, classes=7, image_size=32, mean=(0.3,) * 3, std=(0.4,) * 3)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unpack(pack(model, {}, head))[0](x), model.eval()(x), rtol=1e-4, atol=1e-4)


def manifest_bytes(data: bytes) -> int:
    return int(struct.unpack_from("<4sHI", data)[2])


@pytest.mark.parametrize(("block", "scaled"), [("standard", 0), ("bn_first", 3 + 6 + 12)])
def test_bytes_are_one_bit_a_weight_and_little_else(block: str, scaled: int) -> None:
    """All scales go into the BN behind in standard blocks; in bn_first ones those of each `conv2` do not."""
    model, bits = network(block)
    modules = dict(model.named_modules())
    signs = sum((modules[name].get_parameter("weight").numel() + 7) // 8 for name in bits)
    norms = sum(2 * m.num_features for m in modules.values() if isinstance(m, nn.BatchNorm2d))
    ends = modules["stem.conv"].get_parameter("weight").numel() + sum(
        p.numel() for p in modules["classifier"].parameters()
    )
    data = pack(model, bits, header(block))
    assert len(data) - manifest_bytes(data) == 10 + signs + 4 * (norms + ends + scaled) + 8
    assert manifest_bytes(data) < 350


def test_a_dense_network_is_stored_in_fp32() -> None:
    model, _ = network()
    data = pack(model, {}, header())
    floats = sum(p.numel() for p in model.parameters())
    assert len(data) - manifest_bytes(data) == 10 + 4 * floats + 8
    torch.testing.assert_close(unpack(data)[0](images()), model(images()), rtol=1e-4, atol=1e-4)


def test_only_two_valued_filters_are_stored_as_bits() -> None:
    model, bits = network()
    with pytest.raises(ValueError, match=r"layer stem\.conv cannot be stored with 1 bit"):
        pack(model, {**bits, "stem.conv": 1}, header())
    with pytest.raises(ValueError, match="with 2 bit"):
        pack(model, dict.fromkeys(bits, 2), header())


def test_a_filter_of_zeros_stays_zero() -> None:
    model, bits = network("bn_first")
    conv = model.get_submodule("stages.0.0.conv2").get_parameter("weight")
    conv.data[1] = 0
    again, _ = unpack(pack(model, bits, header("bn_first")))
    assert not again.get_submodule("stages.0.0.conv2").get_parameter("weight")[1].any()


PACKED = pack(*network(), header())


@given(st.integers(0, len(PACKED) - 1))
@settings(deadline=None)
def test_truncated_files_are_refused(length: int) -> None:
    with pytest.raises(PackedFileError):
        unpack(PACKED[:length])


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
@settings(deadline=None)
def test_changed_files_are_refused(place: int, change: int) -> None:
    changed = bytearray(PACKED)
    changed[place] ^= change
    with pytest.raises(PackedFileError):
        unpack(bytes(changed))


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PackedFileError, match="not a packed file"):
        unpack(data)


def signed(manifest: bytes, blob: bytes, version: int = 1) -> bytes:
    """A file with a right checksum, whatever it holds."""
    body = struct.pack("<4sHI", b"PKNN", version, len(manifest)) + manifest + blob
    return body + hashlib.blake2b(body, digest_size=8).digest()


def forged(changes: Mapping[str, Any], blob_change: int = 0) -> bytes:
    length = manifest_bytes(PACKED)
    manifest = {**json.loads(zlib.decompress(PACKED[10 : 10 + length])), **changes}
    blob = PACKED[10 + length : -8]
    blob = blob[:blob_change] if blob_change < 0 else blob + bytes(blob_change)
    return signed(zlib.compress(json.dumps(manifest).encode()), blob)


def test_the_forger_can_write_a_right_file() -> None:
    unpack(forged({}))


HEADER = json.loads(zlib.decompress(PACKED[10 : 10 + manifest_bytes(PACKED)]))["header"]
SHAPES = json.loads(zlib.decompress(PACKED[10 : 10 + manifest_bytes(PACKED)]))["shapes"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (forged({}, blob_change=4), "accounts for"),
        (forged({}, blob_change=-4), "ends after"),
        (forged({"shapes": SHAPES[:-1]}), "layers; resnet8 has"),
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
        (signed(b"", b"", version=2), "version 2"),
    ],
)
def test_files_with_a_right_checksum_and_wrong_contents_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PackedFileError, match=message):
        unpack(data)


def test_layers_that_do_not_fit_one_another_are_refused() -> None:
    model, bits = network()
    conv = model.get_submodule("stages.0.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    conv.weight = nn.Parameter(conv.weight[:, :2])
    with pytest.raises(PackedFileError, match="do not fit"):
        unpack(pack(model, bits, header()))
