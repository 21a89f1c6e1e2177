"""Configs of the methods that quantize a trained network with few images."""

from typing import Literal

from pydantic import Field

from trainables.method_config.base import DistillFields, DistillLosses, LayerRoles, Remains, Share, WorksOn


class PtqGroupConfig(DistillFields):
    """Weights of few bits on a grid for each group of filters, calibrated on few images (post-training, ICPR 2020)."""

    method: Literal["ptq_group"] = "ptq_group"
    epochs: int = Field(default=20, ge=1, description="passes over the images, in the joint stage")
    lr: float = Field(default=0.0001, gt=0, description="largest learning rate of the joint stage")
    distill: Share = Field(default=1.0, description="share of the joint loss that follows the parent; 1: no labels")
    distill_losses: DistillLosses = Field(
        default=("logits", "features"),
        min_length=1,
        strict=False,
        description="what follows the parent's: logits, or outputs of layers: features, attention, relational",
    )
    weight_bits: int = Field(default=4, ge=2, le=8, description="of a weight")
    activation_bits: int | None = Field(
        default=8,
        ge=2,
        le=8,
        description="of what a ReLU gives to layers; null: fp32, whatever feeds layers",
    )
    groups: int = Field(default=0, ge=0, description="grids of a layer, each for equally many filters; 0: one a filter")
    grouping: Literal["contiguous", "range"] = Field(
        default="contiguous", description="which filters share a grid: those next to one another, or of similar range"
    )
    eight_bits: LayerRoles = Field(
        default=("first", "last"), strict=False, description="layers with weights of 8 bits, one grid a filter"
    )
    images: int = Field(default=512, ge=16, description="training images that are seen; all else is told by the parent")
    image_seed: int = Field(default=0, ge=0, description="of the draw of these images, beside the trial's seed")
    clip: Literal["max", "mse", "learned"] = Field(
        default="learned", description="where ranges of activations end; learned: trained on from mse"
    )
    blocks: Literal["block", "layer", "none"] = Field(
        default="block",
        description="first stage: what is calibrated, one after the other, to give what the parent's does",
    )
    block_steps: int = Field(default=300, ge=1, description="steps of Adam for each block")
    block_rate: float = Field(
        default=0.003, gt=0, description="largest rate of these steps, as a share of a tensor's root mean square"
    )
    joint: bool = Field(
        default=True,
        description="second stage: all layers together by the loss of distillation; stands where it brings them nearer",
    )

    def images_needed(self) -> int:
        """See `CompressBase`."""
        return self.images

    def trained_epochs(self) -> int:
        """See `CompressBase`."""
        return self.epochs if self.joint else 0

    def passes(self) -> int:
        """See `CompressBase`."""
        return 0

    def follows(self) -> bool:
        """In the joint stage."""
        return self.joint and super().follows()

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "few bits"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "weights"

    def inert(self) -> frozenset[str]:
        """What belongs to a stage that is left out, or to groups or ranges that there are not."""
        names = set(super().inert()) if self.joint else {"epochs", "lr", *self.distillation()}
        if self.groups <= 1:
            names |= {"grouping"}
        if self.activation_bits is None:
            names |= {"clip"}
        if self.blocks == "none":
            names |= {"block_steps", "block_rate"}
        return frozenset(names)
