"""Configs of the methods that remove filters and leave the others in fp32."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from trainables.method_config.base import CompressBase, DistillFields, Remains, Share, WorksOn

PruneFactorRatio = Annotated[float, Field(ge=0, lt=1)]


class PruneFields(DistillFields):
    """What the filter-pruning methods share."""

    pfr: PruneFactorRatio = Field(default=0.4, description="prune factor ratio: share of filters removed per layer")
    scope: Literal["inner", "all"] = Field(
        default="inner", description="inner: no residual sums; all: tied channels too"
    )
    round_to: int = Field(default=1, ge=1, le=64, description="surviving filters come in multiples of this")
    rounding: Literal["up", "nearest"] = Field(default="up", description="which multiple of round_to is taken")
    ramp_share: Share = Field(default=0.4, description="share of the epochs in which the PFR rises (cubic)")
    freeze_share: Share = Field(default=0.3, description="share of the epochs at the end in which masks stay")

    @field_validator("pfr")
    @classmethod
    def _no_negative_zero(cls, pfr: float) -> float:
        return pfr + 0.0  # -0.0 would be another key

    @model_validator(mode="after")
    def _ramp_ends_before_freeze(self) -> Self:
        if self.ramp_share + self.freeze_share > 1 + 1e-9:
            msg = f"ramp_share {self.ramp_share} + freeze_share {self.freeze_share} is above 1: the ramp must end first"
            raise ValueError(msg)
        return self

    def inert(self) -> frozenset[str]:
        """Without pruning nothing that shapes the masks matters."""
        if self.pfr == 0:
            return super().inert() | {"scope", "round_to", "rounding", "ramp_share", "freeze_share"}
        return super().inert() | ({"rounding"} if self.round_to == 1 else set())


class L1PruneConfig(PruneFields):
    """Filters with the smallest mean |w| pruned, the others fp32 (Li et al., ICLR 2017, with a ramp)."""

    method: Literal["l1_prune"] = "l1_prune"

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "fp32 layers"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "channels"

    def canonical(self) -> CompressBase:
        """At PFR 0 it is plain finetuning."""
        return self.finetuned() if self.pfr == 0 else self.without(DistillFields.inert(self))


class GroupSparsityConfig(DistillFields):
    """Whole channels driven to exactly zero by a group penalty while training, and cut (NIPS 2016)."""

    method: Literal["group_sparsity"] = "group_sparsity"
    penalty: float = Field(
        default=0.05, ge=0, description="strength of the group norm, beside the task's loss, over 1 - momentum"
    )
    sparse_share: Share = Field(
        default=0.0, description="share of the penalty that is an L1 norm of single weights (sparse group lasso)"
    )
    early_groups: int = Field(default=0, ge=0, description="so many groups of channels, from the input, are early ones")
    early_share: Share = Field(default=0.4, description="strength of the penalty on early groups, as a share of it")
    period: Literal["step", "epoch"] = Field(default="step", description="how often the proximal step is taken")
    cut: Literal["epoch", "end"] = Field(
        default="epoch", description="when channels that are zero are cut out; end: of the penalty"
    )
    scope: Literal["inner", "all"] = Field(
        default="inner", description="inner: no residual sums; all: tied channels too"
    )
    min_filters: int = Field(default=1, ge=1, description="filters that each group keeps")
    free_share: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="share of the epochs at the end without the penalty, in which what is left recovers",
    )

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "fp32 layers"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "channels"

    def inert(self) -> frozenset[str]:
        """The early groups' strength needs such groups; without a penalty nothing happens."""
        if self.penalty == 0:
            idle = frozenset(type(self).model_fields) - DistillFields.model_fields.keys() - {"method", "penalty"}
            return idle | super().inert()
        return super().inert() | ({"early_share"} if self.early_groups == 0 else set())

    def canonical(self) -> CompressBase:
        """Without a penalty it is plain finetuning."""
        return super().canonical() if self.penalty > 0 else self.finetuned()
