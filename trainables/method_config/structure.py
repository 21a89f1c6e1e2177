"""Configs of the methods that put other layers in the place of some."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.method_config.base import DistillFields, LayerRoles, Remains, Share, WorksOn, each_once


class DecomposeConfig(DistillFields):
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

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "fp32 layers"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "layers"


Sparse = Literal["conv", "linear"]


class XnetConfig(DistillFields):
    """Layers whose filters read few inputs each, along a fixed random graph (Deep Expander Networks, ECCV 2018)."""

    method: Literal["xnet"] = "xnet"
    reduction: int = Field(default=4, ge=2, le=256, description="a filter reads one in so many inputs of its layer")
    graph: Literal["expander", "groups"] = Field(
        default="expander", description="which inputs: a random balanced graph, or those of a group convolution"
    )
    block: int = Field(default=1, ge=1, le=256, description="so many filters read the same inputs (graph expander)")
    layers: Annotated[tuple[Sparse, ...], each_once(Sparse)] = Field(
        default=("conv", "linear"), min_length=1, strict=False, description="kinds of layers that become sparse"
    )
    init: Literal["random", "parent"] = Field(
        default="random", description="first weights; parent: the parent's where the graph has an edge, made larger"
    )
    keep: LayerRoles = Field(
        default=("first", "last", "downsample"), strict=False, description="layers that stay as they are"
    )

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "groups"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "layers"

    def inert(self) -> frozenset[str]:
        """Groups have no blocks."""
        return super().inert() | ({"block"} if self.graph == "groups" else set())


Expansion = Literal["conv", "stacked", "depthwise", "linear"]


class ExpandConfig(DistillFields):
    """Layers trained as chains of wider linear ones, contracted to what they were at the end (ExpandNets, 2020)."""

    method: Literal["expand"] = "expand"
    factor: int = Field(default=4, ge=1, le=16, description="how many times more channels stand between the layers")
    layers: Annotated[tuple[Expansion, ...], each_once(Expansion)] = Field(
        default=("conv", "linear"),
        min_length=1,
        strict=False,
        description="conv: k x k of one group; stacked: those of k > 3 as 3 x 3 ones; depthwise: of groups; linear",
    )
    init: Literal["random", "parent"] = Field(
        default="parent", description="first weights; parent: a chain that computes what the parent's layer does"
    )
    nonlinear_share: Share = Field(
        default=0.0,
        description="share of the epochs, whole ones at the beginning and never the last, with a ReLU inside of chains",
    )
    keep: LayerRoles = Field(default=("first",), strict=False, description="layers that stay as they are")

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "fp32 layers"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "layers"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "stacked" in self.layers and self.init == "parent":
            msg = "layers stacked needs init random: few k x k kernels are 3 x 3 ones behind one another"
            raise ValueError(msg)
        if self.nonlinear_share > 0 and self.init == "parent":
            msg = "nonlinear_share needs init random: with a ReLU inside a chain does not compute what the parent did"
            raise ValueError(msg)
        return self

    def nonlinear_epochs(self) -> int:
        """How many epochs, from the first, have a ReLU inside of the chains."""
        return min(self.epochs - 1, math.floor(self.nonlinear_share * self.epochs + 1e-9))

    def inert(self) -> frozenset[str]:
        """The share of the epochs with a ReLU where it is no whole one."""
        none = self.nonlinear_share > 0 and self.nonlinear_epochs() == 0
        return super().inert() | ({"nonlinear_share"} if none else set())


class LowRankConfig(DistillFields):
    """Layers driven to a low rank by a nuclear-norm penalty, then split in two (compression-aware training, 2017)."""

    method: Literal["low_rank"] = "low_rank"
    penalty: float = Field(
        default=0.1, ge=0, description="strength of the nuclear norm, beside the task's loss, over 1 - momentum"
    )
    energy: float = Field(
        default=0.9, gt=0, le=1, description="share of the sum of singular values that a split layer keeps"
    )
    split_at: Share = Field(default=0.5, description="share of the epochs after which layers are split; 1: at the end")
    keep: LayerRoles = Field(default=("first", "last"), strict=False, description="layers that stay as they are")

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "fp32 layers"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "layers"
