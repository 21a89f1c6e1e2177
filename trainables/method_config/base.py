"""What every compression method's config has."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from trainables.model_config import Section

Share = Annotated[float, Field(ge=0, le=1)]
LayerRole = Literal["first", "last", "downsample"]


def _in_order(roles: tuple[LayerRole, ...]) -> tuple[LayerRole, ...]:
    if len(set(roles)) < len(roles):
        msg = f"{list(roles)} names a layer role twice"
        raise ValueError(msg)
    return tuple(sorted(roles, key=get_args(LayerRole).index))


LayerRoles = Annotated[tuple[LayerRole, ...], AfterValidator(_in_order)]


class CompressBase(Section):
    """What every compression method has: a schedule that continues from the dense parent."""

    epochs: int = Field(default=20, ge=1, description="passes over the training images")
    lr: float = Field(default=0.05, gt=0, description="largest learning rate of the schedule")

    def few_bit_inputs(self) -> str:
        """The leaf, and its value, that gives layers inputs of one or two bits; empty if none does."""
        return ""

    def same_bits(self) -> "CompressBase | None":
        """Weight binarization with the same bits and schedule, baseline `binary`; None: none is comparable."""
        return None

    def stages(self) -> "tuple[CompressBase, ...]":
        """What is trained one after the other, each as a stage: itself, or the steps of a pipeline."""
        return (self,)

    def trained(self) -> "CompressBase":
        """The method that a stage of this config trains."""
        return self

    def inert(self) -> frozenset[str]:
        """Leaves that have no effect given the others; they are left out of the key."""
        return frozenset()

    def canonical(self) -> "CompressBase":
        """The same computation with every inert leaf at its default."""
        defaults = {name: type(self).model_fields[name].get_default(call_default_factory=True) for name in self.inert()}
        return self.model_copy(update=defaults)


class FinetuneConfig(CompressBase):
    """Nothing compressed: the parent trained on with the same schedule (baseline `dense_finetuned`)."""

    method: Literal["finetune"] = "finetune"
