"""Stage `evaluate`: pack the network as a device would store it, read it back, and measure what was read."""

from torch import Tensor

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset, Split, normalise
from trainables.errors import PackedFileError
from trainables.export.packed import PackedHeader, pack, unpack
from trainables.measure.cost import cost, ratios
from trainables.measure.interval import wilson
from trainables.models.compact import Compact
from trainables.stages.base import Outcome, empty_model, restore
from trainables.training.loop import accuracy, predict

LOGIT_TOLERANCE = 1e-3
"""Largest difference, as a share of the largest logit, that folding BN in fp32 may make."""

CHECKED_IMAGES = 1000
"""Test images on which the network read back is compared, logit by logit, with the one that was packed."""

STEPPED_TOLERANCE = 0.02
"""The same for the median image where activations are quantized.

A value that folding rounds otherwise may fall on the other side of a step, and what follows differs by steps. ResNet-18
with random weights and int8 activations (557,000 values an image) measured 0.003, with signs and ternary ones 1e-7.
"""

STEPPED_SHARE = 0.05
"""Largest share of the images that may change their class there; the same network measured 0.016 with int8."""


def evaluate(config: TrialConfig, data: Dataset, device: Device, parent: bytes) -> Outcome:
    """Accuracy, bytes and arithmetic of the network that the parent stage left; the output is the packed file.

    All of it is measured on the network read back from the packed file.

    Raises:
        PackedFileError: the network read back computes something else than the one that was packed.

    """
    network = restore(config, data, parent)
    packed = pack(network, _header(config, data))
    # the config was planned, and no plan holds a user's own code without --allow-code
    reloaded, _ = unpack(packed, allow_code=True)
    model = reloaded.model
    _check_equal(network, reloaded, data, device)
    logits = predict(model, data.test, data, device=device)
    model.cpu()
    measured = _measured(config, data, reloaded, len(packed))
    tested = _accuracy(_correct(logits, data.test), len(data.test))
    val_accuracy = accuracy(model, data.val, data, device=device)
    return Outcome(packed, {**tested, "val_accuracy": val_accuracy, **measured})


def _header(config: TrialConfig, data: Dataset) -> PackedHeader:
    return PackedHeader(
        model=config.model,
        channels=int(data.mean.numel()),
        classes=data.classes,
        image_size=int(data.test.images.shape[-1]),
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
    )


def _check_equal(packed: Compact, unpacked: Compact, data: Dataset, device: Device) -> None:
    """Refuse a file whose network gives other logits for any image, or with quantized activations for many."""
    sample = Split(data.test.images[:CHECKED_IMAGES], data.test.labels[:CHECKED_IMAGES])
    before, after = (predict(network.model, sample, data, device=device) for network in (packed, unpacked))
    stepped = bool(packed.activations)
    differences = (before - after).abs().amax(1)
    difference = float(differences.median() if stepped else differences.max())
    tolerance = STEPPED_TOLERANCE if stepped else LOGIT_TOLERANCE
    if not difference <= tolerance * max(1.0, float(before.abs().max())):
        images = "half of the images" if stepped else "an image"
        msg = f"the packed network's logits differ from the trained one's by {difference:.3g} or more for {images}"
        raise PackedFileError(msg)
    changed = float((before.argmax(1) != after.argmax(1)).double().mean())
    if stepped and changed > STEPPED_SHARE:
        msg = f"the packed network gives {changed:.1%} of the images another class than the trained one does"
        raise PackedFileError(msg)


def _correct(logits: Tensor, split: Split) -> int:
    return int((logits.argmax(1) == split.labels).sum())


def _accuracy(correct: int, images: int) -> dict[str, float]:
    low, high = wilson(correct, images)
    return {"accuracy": correct / images, "accuracy_low": low, "accuracy_high": high, "test_images": images}


def _measured(config: TrialConfig, data: Dataset, network: Compact, packed_bytes: int) -> dict[str, float | int | None]:
    dense = empty_model(config, data)
    example = normalise(data.test.images[:1], data)
    spent = cost(network.model, network.bits, example, network.input_bits, config.cost)
    smaller = ratios(dense, network.model, network.bits, packed_bytes)
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
    }
