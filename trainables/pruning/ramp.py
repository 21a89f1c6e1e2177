"""How many channels stay: per epoch, and per group."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ramp:
    """The prune factor ratio over the epochs: rises cubically, reaches `pfr`, then masks freeze.

    pfr_e = pfr * (1 - (1 - e / R)^3) for epoch e < R = ramp_share * epochs, then pfr (Zhu and Gupta, "To prune, or
    not to prune", 2017, equation 1). Masks are recomputed before each epoch up to `last_update`, where the whole
    pfr is reached in any case, and stay for at least the last freeze_share of the epochs.
    """

    pfr: float
    ramp_share: float
    freeze_share: float

    def last_update(self, epochs: int) -> int:
        """The epoch (from 0) before which masks are computed for the last time."""
        return min(epochs - 1, math.floor(epochs * (1 - self.freeze_share) + 1e-9))

    def at(self, epoch: int, epochs: int) -> float:
        """The prune factor ratio of epoch `epoch` (from 0) of `epochs`."""
        rise = self.ramp_share * epochs
        if epoch >= rise or epoch >= self.last_update(epochs):
            return self.pfr
        return self.pfr * (1 - (1 - epoch / rise) ** 3)


def kept_channels(channels: int, pfr: float, round_to: int = 1) -> int:
    """ceil((1 - pfr) * channels - 1e-9), rounded up to a multiple of `round_to`; at least 1, at most `channels`."""
    kept = max(1, math.ceil((1 - pfr) * channels - 1e-9))
    return min(channels, math.ceil(kept / round_to) * round_to)
