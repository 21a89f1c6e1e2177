"""What a network says of unlabelled images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config import Device, Precision
from trainables.data.load import Dataset, Split
from trainables.models.build import last_layer
from trainables.training.loop import predict


@dataclass(frozen=True, slots=True)
class Reading:
    """Logits fp32 (N, K), and the inputs of the last layer fp32 (N, D) where they were asked for."""

    logits: Tensor
    features: Tensor | None


def read_pool(
    model: nn.Module, images: Tensor, data: Dataset, *, precision: Precision, device: Device, features: bool
) -> Reading:
    """Logits and features of uint8 images (N, C, H, W) in eval mode."""
    seen: list[Tensor] = []
    layer = model.get_submodule(last_layer(model))
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    logits = predict(model, split, data, device=device)
    handle.remove()
    return Reading(logits, torch.cat(seen) if features else None)
