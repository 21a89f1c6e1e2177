"""Configs of the methods with weights of one or two bits."""

from typing import Literal, Self, cast

from pydantic import Field, model_validator

from trainables.method_config.base import DistillFields, LayerRoles, Remains, Share, WorksOn
from trainables.method_config.pruning import PruneFields

ActivationKind = Literal["float", "int8", "ternary", "sign"]


class BinaryFields(DistillFields):
    """What the methods with weights of one or two bits share."""

    scale: Literal["filter", "layer", "one", "two_valued"] = Field(
        default="filter", description="where the scale mean|w| is taken; one: 1; two_valued: two free values a filter"
    )
    activations: ActivationKind = Field(
        default="float", description="inputs of the layers that are not full_precision; int8 is calibrated"
    )
    full_precision: LayerRoles = Field(default=("first", "last"), strict=False, description="layers that stay fp32")

    def few_bit_inputs(self) -> str:
        """See `CompressBase`."""
        return f"activations {self.activations}" if self.activations in ("sign", "ternary") else ""

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "few bits"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "weights"


class StqConfig(PruneFields, BinaryFields):
    """Structured ternary quantization: whole filters pruned, the others one bit a weight (STQ-Nets, BMVC 2020)."""

    method: Literal["stq"] = "stq"
    mode: Literal["target", "threshold"] = Field(
        default="target", description="target: pfr is asked; threshold: max_zero_share decides, the pfr is an outcome"
    )
    max_zero_share: float = Field(
        default=0.6, gt=0, le=1, description="mode threshold: filters with a larger share of near-zero weights go"
    )
    budget: Literal["layer", "global"] = Field(
        default="layer", description="whether pfr holds in each group of channels, or over all of them"
    )
    min_filters: int = Field(
        default=0, ge=0, description="filters that each group keeps; 0: a group pruned to nothing is infeasible"
    )
    threshold: float = Field(default=0.7, gt=0, le=10, description="near zero: |w| < threshold x mean (or max) |w|")
    threshold_of: Literal["mean", "max"] = Field(
        default="mean", description="what the threshold is a factor of, per layer"
    )
    score: Literal["zero_share", "mean_abs", "binarization_error"] = Field(
        default="zero_share", description="filters' rank"
    )
    weights: Literal["binary", "ternary"] = Field(
        default="binary", description="ternary: near-zero weights of surviving filters are 0 too"
    )

    @model_validator(mode="after")
    def _two_values_are_not_three(self) -> Self:
        if self.weights == "ternary" and self.scale == "two_valued":
            msg = "scale two_valued needs weights binary: a ternary filter has three values"
            raise ValueError(msg)
        return self

    def prunes(self) -> bool:
        """Whether any filter may go."""
        return self.mode == "threshold" or self.pfr > 0

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "channels" if self.prunes() else "weights"

    def inert(self) -> frozenset[str]:
        """What does not act: the ranking's leaves without pruning, the other mode's, the threshold without a user."""
        names = set(DistillFields.inert(self))
        if self.mode == "threshold":
            names |= {"pfr", "score", "budget"}
        else:
            names |= {"max_zero_share"}
        if not self.prunes():
            names |= {"scope", "round_to", "rounding", "ramp_share", "freeze_share", "score", "budget", "min_filters"}
        if self.round_to == 1:
            names |= {"rounding"}
        ranked = self.prunes() and (self.mode == "threshold" or self.score == "zero_share")
        if not ranked and self.weights == "binary":
            names |= {"threshold", "threshold_of"}
        return frozenset(names)

    def canonical(self) -> "StqConfig":
        """The same computation with every inert leaf at its default."""
        return cast("StqConfig", super().canonical())

    def same_bits(self) -> "BinaryConfig | StqConfig":
        """See `CompressBase`."""
        return self.unpruned()

    def unpruned(self) -> "BinaryConfig | StqConfig":
        """The same bits and schedule with every filter kept."""
        if self.weights == "binary":
            return BinaryConfig(**{name: getattr(self, name) for name in BinaryFields.model_fields})
        return self.model_copy(update={"mode": "target", "pfr": 0.0}).canonical()


class BinaryConfig(BinaryFields):
    """One-bit weights, nothing pruned: STQ at PFR 0."""

    method: Literal["binary"] = "binary"

    def canonical(self) -> StqConfig:
        """STQ at PFR 0, of which this is another name."""
        shared = {name: getattr(self, name) for name in BinaryFields.model_fields}
        return StqConfig(pfr=0.0, **shared).canonical()

    def same_bits(self) -> "BinaryConfig":
        """Itself."""
        return self

    def unpruned(self) -> "BinaryConfig":
        """Itself."""
        return self


class DabnConfig(DistillFields):
    """Weights of two free values a filter, inputs of one bit (Distribution-Aware Binarization, WACV 2018)."""

    method: Literal["dabn"] = "dabn"
    activations: Literal["sign", "float"] = Field(
        default="sign", description="inputs of the convolutions that are not full_precision"
    )
    full_precision: LayerRoles = Field(default=("first",), strict=False, description="layers that stay fp32")

    def few_bit_inputs(self) -> str:
        """See `CompressBase`."""
        return "activations sign" if self.activations == "sign" else ""

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "few bits"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "weights"

    def same_bits(self) -> BinaryConfig:
        """XNOR-Net's one scale a filter. Its last layer stays fp32 where its inputs are signs, which no mean gives."""
        kept = self.full_precision if self.activations == "float" else (*self.full_precision, "last")
        return BinaryConfig(
            epochs=self.epochs,
            lr=self.lr,
            activations=self.activations,
            full_precision=tuple(dict.fromkeys(kept)),
            **self.distillation(),
        )


class HybridConfig(DistillFields):
    """Binary weights everywhere, inputs of one bit where they do least harm (Hybrid Binary Networks, WACV 2018)."""

    method: Literal["hybrid"] = "hybrid"
    ratio: Share = Field(
        default=0.4, description="at most this share of the activations stays fp32; 0: all are signs; 1: none is"
    )
    cost_weight: float = Field(
        default=0.1, ge=0, description="how much an activation gains by the few MACs that read it, beside its error"
    )
    binary_share: Share = Field(
        default=0.4, description="share of the epochs with signs everywhere, after which the errors are measured"
    )
    full_precision: LayerRoles = Field(default=("first",), strict=False, description="layers that stay fp32")

    def few_bit_inputs(self) -> str:
        """See `CompressBase`."""
        return "method hybrid"

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "few bits"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "weights"

    def same_bits(self) -> BinaryConfig:
        """Signs everywhere; the last layer fp32, as its inputs are."""
        kept = tuple(dict.fromkeys((*self.full_precision, "last")))
        return BinaryConfig(
            epochs=self.epochs, lr=self.lr, activations="sign", full_precision=kept, **self.distillation()
        )
