"""How many channels stay: per epoch, and per group."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ramp:
    """How much of the pruning is done over the epochs: rises cubically, reaches all, then masks freeze.

    progress_e = 1 - (1 - e / R)^3 for epoch e < R = ramp_share * epochs, then 1 (Zhu and Gupta, "To prune, or not to
    prune", 2017, equation 1). Masks are recomputed before each epoch up to `last_update`, where all of it is reached
    in any case, and stay for at least the last freeze_share of the epochs.
    """

    ramp_share: float
    freeze_share: float

    def last_update(self, epochs: int) -> int:
        """The epoch (from 0) before which masks are computed for the last time."""
        return min(epochs - 1, math.floor(epochs * (1 - self.freeze_share) + 1e-9))

    def progress(self, epoch: int, epochs: int) -> float:
        """The share of the pruning, 0 to 1, that stands in epoch `epoch` (from 0) of `epochs`."""
        rise = self.ramp_share * epochs
        if epoch >= rise or epoch >= self.last_update(epochs):
            return 1.0
        return 1 - (1 - epoch / rise) ** 3

    def settled(self, epoch: int, epochs: int) -> bool:
        """Whether in epoch `epoch` (from 0) all of the pruning stood and, where masks ever freeze, they were frozen.

        Before, a network that is to lose more looks better than it will be. Masks that never freeze (freeze_share 0)
        settle where the ramp ends.
        """
        frozen = self.freeze_share == 0 or epoch >= self.last_update(epochs)
        return frozen and self.progress(epoch, epochs) == 1


@dataclass(frozen=True, slots=True)
class Rounding:
    """Surviving channels come in multiples of `step`, so that a machine's vectors are full."""

    step: int = 1
    to: Literal["up", "nearest"] = "up"

    def __call__(self, count: int, channels: int, least: int = 0) -> int:
        """How many of `channels` stay where `count` were to: all if none goes, else a multiple of `step`.

        The multiple above, or the nearest (of two equally near the larger) unless that is 0 or below `least`; never
        more than there are. A `count` of 0 stays 0 only where `least` is 0.
        """
        if count >= channels:
            return channels
        wanted = max(count, least)
        above = math.ceil(wanted / self.step) * self.step
        nearest = math.floor(wanted / self.step + 0.5) * self.step
        chosen = nearest if self.to == "nearest" and nearest >= max(1, least) else above
        return min(channels, chosen)


ANY_COUNT = Rounding()


def kept_channels(channels: int, pfr: float, rounding: Rounding = ANY_COUNT, least: int = 0) -> int:
    """ceil((1 - pfr) * channels - 1e-9), rounded; at least 1 and `least`, at most `channels`."""
    return rounding(max(1, math.ceil((1 - pfr) * channels - 1e-9)), channels, least)
