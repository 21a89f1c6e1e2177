"""Configs of the methods that put other layers in the place of some."""

from typing import Literal

from pydantic import Field

from trainables.method_config.base import CompressBase, LayerRoles


class DecomposeConfig(CompressBase):
    """k x k convolutions as a k x 1 and a 1 x k one, trained end to end (DecomposeMe, 2016)."""

    method: Literal["decompose"] = "decompose"
    width_share: float = Field(
        default=1.0, gt=0, le=4, description="filters between the two convolutions, as a share of the layer's filters"
    )
    between: Literal["norm_relu", "relu", "norm", "nothing"] = Field(
        default="norm_relu", description="what stands between the two convolutions"
    )
    init: Literal["random", "parent"] = Field(
        default="random", description="their first weights; parent: the best ones of their rank (SVD) of the parent's"
    )
    keep: LayerRoles = Field(default=("first",), strict=False, description="layers that stay as they are")
