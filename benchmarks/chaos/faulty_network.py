"""A network of a study's own, which does harm when it is built where the folder `harm` beside it holds an order.

A file in that folder is named after what is to happen: `hang`, `stop` or `grow MIB`, done once by whoever takes the
file away; `hold MIB`, done by everybody.
"""

import os
import signal
import time
from pathlib import Path

from torch import Tensor, nn

ORDERS = Path(__file__).with_name("harm")
MIB = 2**20
held: list[bytes] = []


class Network(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W)."""
        x = self.norm(self.first(images)).relu()
        x = self.norm2(self.second(x)).relu()
        return self.last(self.pool(x).flatten(1))


def make(channels: int, classes: int) -> nn.Module:
    """The network, after what has been ordered."""
    for order in sorted(ORDERS.glob("*")) if ORDERS.is_dir() else ():
        kind, _, size = order.name.partition(" ")
        if kind != "hold":
            try:
                order.unlink()
            except FileNotFoundError:
                continue  # another worker does it
        _obey(kind, int(size or 0))
    return Network(channels, classes)


def _obey(kind: str, size: int) -> None:
    held.clear()
    if kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    while kind == "hang":
        pass
    for _ in range(size // 16):
        held.append(b"x" * (16 * MIB))
        time.sleep(0.005)
    if kind == "grow":
        time.sleep(2.0)  # for the watchers to see it
        held.clear()
