"""Stage `evaluate`: pack the network as a device would store it, read it back, and measure what was read."""

import torch
from torch import Tensor, nn

from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset, Split, normalise
from trainables.errors import PackedFileError
from trainables.export.packed import PackedHeader, pack, unpack
from trainables.measure.cost import cost, ratios
from trainables.measure.interval import wilson
from trainables.stages.base import Outcome, empty_model, restore
from trainables.training.loop import accuracy, predict

LOGIT_TOLERANCE = 1e-3
"""Largest difference, as a share of the largest logit, that folding BN in fp32 may make."""

CHECKED_IMAGES = 1000
"""Test images on which the network read back is compared, logit by logit, with the one that was packed."""


def evaluate(config: TrialConfig, data: Dataset, device: Device, parent: bytes) -> Outcome:
    """Accuracy, bytes and arithmetic of the network that the parent stage left; the output is the packed file.

    All of it is measured on the network read back from the packed file.

    Raises:
        PackedFileError: the network read back computes something else than the one that was packed.

    """
    network = restore(config, data, parent)
    bits = dict(network.bits)
    packed = pack(network, _header(config, data))
    model = unpack(packed, allow_code=True)[0].model
    _check_equal(network.model, model, data, device)
    logits = predict(model, data.test, data, device=device)
    measured = _measured(config, data, model.cpu(), bits, packed)
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


def _check_equal(packed: nn.Module, unpacked: nn.Module, data: Dataset, device: Device) -> None:
    sample = Split(data.test.images[:CHECKED_IMAGES], data.test.labels[:CHECKED_IMAGES])
    before, after = (predict(model, sample, data, device=device) for model in (packed, unpacked))
    difference = float((before - after).abs().max())
    if not difference <= LOGIT_TOLERANCE * max(1.0, float(before.abs().max())):
        msg = f"the packed network's logits differ from the trained one's by up to {difference:.3g}"
        raise PackedFileError(msg)


def _correct(logits: Tensor, split: Split) -> int:
    return int((logits.argmax(1) == split.labels).sum())


def _accuracy(correct: int, images: int) -> dict[str, float]:
    low, high = wilson(correct, images)
    return {"accuracy": correct / images, "accuracy_low": low, "accuracy_high": high, "test_images": images}


def _measured(
    config: TrialConfig, data: Dataset, model: nn.Module, bits: dict[str, int], packed: bytes
) -> dict[str, float | int]:
    dense = empty_model(config, data)
    with torch.no_grad():
        spent = cost(model, bits, normalise(data.test.images[:1], data))
    smaller = ratios(dense, model, bits, len(packed))
    return {
        "compression": smaller.compression,
        "payload_compression": smaller.payload_compression,
        "layer_compression_max": smaller.layer_compression_max,
        "bits_per_weight": spent.bits_per_weight,
        "packed_bytes": len(packed),
        "dense_bytes": 4 * sum(parameter.numel() for parameter in dense.parameters()),
        "params": spent.params,
        "macs": spent.macs,
        "bops": spent.bops,
    }
