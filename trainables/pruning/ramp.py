"""How many channels stay: per epoch, and per group."""

import math
from dataclasses import dataclass


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


def kept_channels(channels: int, pfr: float, round_to: int = 1) -> int:
    """ceil((1 - pfr) * channels - 1e-9), rounded up to a multiple of `round_to`; at least 1, at most `channels`."""
    return min(channels, rounded_up(max(1, math.ceil((1 - pfr) * channels - 1e-9)), round_to))


def rounded_up(count: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `count`."""
    return math.ceil(count / step) * step
