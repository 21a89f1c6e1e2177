"""Stage `evaluate`: pack the network as a device would store it, read it back, and measure what was read."""

import copy

import torch
from torch import Tensor, nn

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset, Split, normalise
from trainables.data.samples import checked_images
from trainables.errors import PackedFileError
from trainables.export.packed import pack, unpack
from trainables.measure.cost import cost, ratios
from trainables.measure.dynamic import DynamicCost, dynamic_cost, gates_watched
from trainables.measure.interval import wilson
from trainables.models.compact import Compact
from trainables.models.gated import HardGate
from trainables.quantize import replace_module
from trainables.stages.base import Outcome, empty_model, header, restore
from trainables.training.loop import accuracy, predict

LOGIT_TOLERANCE = 3e-5
"""Largest difference, as a share of the largest logit, that folding BN in fp32 may make.

ResNets, VGG, MobileNetV2 and DenseNet-121 of random weights measured at most 8e-7 on a CPU; a GPU may sum less exactly.
"""


def evaluate(config: TrialConfig, data: Dataset, device: Device, parent: bytes) -> Outcome:
    """Accuracy, bytes and arithmetic of the network that the parent stage left; the output is the packed file.

    All of it is measured on the network read back from the packed file.

    Raises:
        PackedFileError: the network read back computes something else than the one that was packed.

    """
    network = restore(config, data, parent)
    packed = pack(network, header(config, data))
    # the config was planned, and no plan holds a user's own code without --allow-code
    reloaded, _ = unpack(packed, allow_code=True)
    model = reloaded.model
    _check_equal(network, reloaded, data, device)
    with gates_watched(model) as gates:
        logits = predict(model, data.test, data, device=device)
    example = normalise(data.test.images[:1], data)
    dynamic = dynamic_cost(model.cpu(), example, gates, data.test.labels)
    measured = _measured(config, data, reloaded, len(packed), dynamic)
    tested = _accuracy(_correct(logits, data.test), len(data.test))
    val_accuracy = accuracy(model, data.val, data, device=device)
    return Outcome(packed, {**tested, "val_accuracy": val_accuracy, **measured})


def _check_equal(packed: Compact, unpacked: Compact, data: Dataset, device: Device) -> None:
    """Refuse a file whose network is another one.

    Quantized activations, weights on a grid and the signs of few-bit weights must be equal; all else is compared by the
    logits of test images, with smooth activations and gates in place of the quantized and the hard ones of both
    networks: a value that folding rounds otherwise may fall on the other side of a step, which says nothing of the
    file.
    """
    _check_levels(packed, unpacked)
    before, after = (
        predict(_smooth(network), checked_images(data), data, device=device) for network in (packed, unpacked)
    )
    difference = float((before - after).abs().max())
    if not difference <= LOGIT_TOLERANCE * max(1.0, float(before.abs().max())):
        msg = f"the packed network's logits differ from the trained one's by up to {difference:.3g}"
        raise PackedFileError(msg)


def _check_levels(packed: Compact, unpacked: Compact) -> None:
    """Refuse other bits, other quantized activations or other signs of few-bit weights."""
    for name in ("bits", "activations", "input_bits", "grids"):
        trained, stored = dict(getattr(packed, name)), dict(getattr(unpacked, name))
        if trained != stored:
            wrong = sorted(key for key in trained | stored if trained.get(key) != stored.get(key))
            msg = f"the packed network's {name} differ from the trained one's at {', '.join(wrong)}"
            raise PackedFileError(msg)
    probe = torch.linspace(-4, 4, 4001)
    for name in packed.activations:
        trained, stored = (network.model.get_submodule(name)(probe) for network in (packed, unpacked))
        if not torch.equal(trained, stored):
            msg = f"the packed network's activation computes something else than the trained one's at {name}"
            raise PackedFileError(msg)
    for name in packed.bits:
        trained, stored = (
            network.model.get_submodule(name).get_parameter("weight").detach().cpu() for network in (packed, unpacked)
        )
        if name in packed.grids and not torch.equal(trained, stored):
            msg = f"the packed network's weights lie elsewhere on their grid than the trained one's at {name}"
            raise PackedFileError(msg)
        if not _same_signs(trained, stored):
            msg = f"the packed network's weights have other signs than the trained one's at {name}"
            raise PackedFileError(msg)


def _same_signs(trained: Tensor, stored: Tensor) -> bool:
    """Of all weights; those of a filter of zeros are stored with any sign where the scale, 0, stands in a BN."""
    if trained.shape != stored.shape:
        return False
    dead = (trained == 0).flatten(1).all(1)
    return torch.equal(trained[~dead].sign(), stored[~dead].sign())


def _smooth(network: Compact) -> nn.Module:
    """A copy of the model in which every quantized activation is x / (1 + |x|), and every gate a sigmoid."""
    model = copy.deepcopy(network.model)
    for name in network.activations:
        replace_module(model, name, nn.Softsign())
    for name in [name for name, module in model.named_modules() if isinstance(module, HardGate)]:
        replace_module(model, name, nn.Sigmoid())
    return model


def _correct(logits: Tensor, split: Split) -> int:
    return int((logits.argmax(1) == split.labels).sum())


def _accuracy(correct: int, images: int) -> dict[str, float]:
    low, high = wilson(correct, images)
    return {"accuracy": correct / images, "accuracy_low": low, "accuracy_high": high, "test_images": images}


def _measured(
    config: TrialConfig, data: Dataset, network: Compact, packed_bytes: int, dynamic: DynamicCost | None
) -> dict[str, float | int | None]:
    dense = empty_model(config, data)
    example = normalise(data.test.images[:1], data)
    expected = dynamic.layers if dynamic else None
    spent = cost(network.model, network.bits, example, network.input_bits, config.cost, expected, network.grids)
    smaller = ratios(dense, network.model, network.bits, packed_bytes, network.grids)
    return {
        "compression": smaller.compression,
        "payload_compression": smaller.payload_compression,
        "hidden_compression": smaller.hidden_compression,
        "layer_compression_max": smaller.layer_compression_max,
        "bits_per_weight": spent.bits_per_weight,
        "weight_bytes": spent.weight_bytes,
        "packed_bytes": packed_bytes,
        "dense_bytes": 4 * sum(parameter.numel() for parameter in dense.parameters()),
        "params": spent.params,
        "macs": spent.macs,
        "bops": spent.bops,
        "mac_cost": spent.mac_cost,
        **(_by_image(dynamic) if dynamic else {}),
    }


def _by_image(dynamic: DynamicCost) -> dict[str, int]:
    """How far the multiply-accumulates of images lie apart."""
    return {
        "macs_worst": dynamic.worst,
        "macs_class_least": round(min(dynamic.classes.values())),
        "macs_class_most": round(max(dynamic.classes.values())),
    }
