"""Configs of the methods whose networks compute different things for different images."""

from typing import Literal

from pydantic import Field

from trainables.method_config.base import DistillFields, LayerRoles, Remains, Share, WorksOn


class LkamConfig(DistillFields):
    """Kernels switched on and off image by image by small gates, trained jointly (parsimonious inference, 2017)."""

    method: Literal["lkam"] = "lkam"
    gain: float = Field(
        default=20.0, ge=0, le=1000, description="what kernels that are on cost, beside the task's loss"
    )
    active_share: Share = Field(default=0.3, description="share of a layer's kernels that may be on at no cost")
    threshold: float = Field(default=0.5, gt=0, lt=1, description="a kernel is on where its gate is at least this")
    soft_share: Share = Field(
        default=0.2, description="share of the epochs with soft gates; afterwards they are on or off as in use"
    )
    removal_share: Share = Field(
        default=0.01, description="kernels that are on for at most this share of the training images are removed"
    )
    min_kernels: int = Field(default=1, ge=1, description="kernels of each layer that are not removed")
    keep: LayerRoles = Field(default=("first",), strict=False, description="layers that get no gates")

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "gates"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "channels"
