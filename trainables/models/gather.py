"""Channels in another order, some of them several times: how a sparse layer reads just what it needs."""

import torch
from torch import Tensor, nn


class Gather(nn.Module):
    """y[:, c] = x[:, index[c]]; (N, I, H, W) -> (N, places, H, W), or features (N, I) -> (N, places, 1, 1).

    `index`, int64, is a buffer; it is not set when the layer is made.
    """

    def __init__(self, inputs: int, places: int, *, features: bool = False) -> None:
        super().__init__()
        self.inputs = inputs
        self.features = features
        self.register_buffer("index", torch.empty(places, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """The chosen channels."""
        chosen = x.index_select(1, self.get_buffer("index"))
        return chosen[:, :, None, None] if self.features else chosen

    @property
    def index_bytes(self) -> int:
        """Bytes that an entry of the index takes in a file: 1, 2 or 3."""
        return (max(1, (self.inputs - 1).bit_length()) + 7) // 8
