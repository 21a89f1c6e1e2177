"""What every compression method's config has."""

from abc import abstractmethod
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from trainables.model_config import Section

Share = Annotated[float, Field(ge=0, le=1)]
LayerRole = Literal["first", "last", "downsample"]
Remains = Literal["fp32 layers", "few bits", "gates", "groups"]
"""What a method leaves for the next step of a pipeline; `groups`: convolutions of groups that gather their inputs."""

WorksOn = Literal["weights", "channels", "layers"]
"""What a method changes: weights where they are, which channels there are, or which layers."""


def each_once(options: object) -> AfterValidator:
    """Of a list of words: each once, in the order of the `Literal` that they come from, as the order says nothing."""
    order: tuple[str, ...] = get_args(options)

    def ordered(words: tuple[str, ...]) -> tuple[str, ...]:
        for word in dict.fromkeys(words):
            if words.count(word) > 1:
                msg = f"{word!r} is there twice; keep one"
                raise ValueError(msg)
        return tuple(sorted(words, key=order.index))

    return AfterValidator(ordered)


LayerRoles = Annotated[tuple[LayerRole, ...], each_once(LayerRole)]
DistillLoss = Literal["logits", "features", "attention", "relational"]
DistillLosses = Annotated[tuple[DistillLoss, ...], each_once(DistillLoss)]


class CompressBase(Section):
    """What every compression method has: a schedule that continues from the dense parent."""

    epochs: int = Field(default=20, ge=1, description="passes over the training images")
    lr: float = Field(default=0.05, gt=0, description="largest learning rate of the schedule")

    def few_bit_inputs(self) -> str:
        """The leaf, and its value, that gives layers inputs of one or two bits; empty if none does."""
        return ""

    def images_needed(self) -> int:
        """Training images that there must be, beside a batch."""
        return 0

    def trained_epochs(self) -> int:
        """Epochs of the stage that it is; 0 where nothing is trained through the whole network."""
        return self.epochs

    def passes(self) -> int:
        """Epochs over all training images, which its baselines are trained for; 0: it sees few of them."""
        return self.epochs

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
        return self.without(self.inert())

    def without(self, leaves: frozenset[str]) -> "CompressBase":
        """The same with `leaves` at their defaults."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].get_default(call_default_factory=True) for name in leaves})


class StepBase(CompressBase):
    """What every method but the pipeline says, so that pipelines know in which order methods can stand."""

    @abstractmethod
    def remains(self) -> Remains:
        """What the network is made of afterwards."""

    @abstractmethod
    def works_on(self) -> WorksOn:
        """What it changes."""


class DistillFields(StepBase):
    """What every method that trains can add: a loss by which the network follows the one that it began as."""

    distill: Share = Field(
        default=0.0, description="share of the loss that follows the parent, in a pipeline the step before"
    )
    temperature: float = Field(default=4.0, gt=0, description="softens the logits in distillation")
    distill_losses: DistillLosses = Field(
        default=("logits",),
        min_length=1,
        strict=False,
        description="what follows the parent's: logits, or outputs of layers: features, attention, relational",
    )
    hint_weight: float = Field(
        default=1.0, gt=0, description="of features, attention and relational together, beside the logits"
    )
    distill_layers: tuple[str, ...] = Field(
        default=(), strict=False, description="layers whose outputs follow; none named: the last one of each image size"
    )

    def follows(self) -> bool:
        """Whether the loss has a part that follows the parent."""
        return self.distill > 0

    def distillation(self) -> dict[str, Any]:
        """The leaves of distillation, for another method that shall distill alike."""
        return {name: getattr(self, name) for name in DistillFields.model_fields if name not in _SCHEDULE}

    def inert(self) -> frozenset[str]:
        """Without distillation its leaves; the temperature is that of logits, the others that of layers' outputs."""
        if self.distill == 0:
            return frozenset(self.distillation()) - {"distill"}
        names = frozenset[str]() if "logits" in self.distill_losses else frozenset({"temperature"})
        return names | ({"hint_weight", "distill_layers"} if self.distill_losses == ("logits",) else set())

    def finetuned(self) -> "FinetuneConfig":
        """The same schedule and distillation with nothing compressed."""
        config = FinetuneConfig(epochs=self.epochs, lr=self.lr, **self.distillation())
        return FinetuneConfig.model_validate(config.canonical())


_SCHEDULE = frozenset(CompressBase.model_fields)


class FinetuneConfig(DistillFields):
    """Nothing compressed: the parent trained on with the same schedule (baseline `dense_finetuned`)."""

    method: Literal["finetune"] = "finetune"

    def remains(self) -> Remains:
        """See `StepBase`."""
        return "fp32 layers"

    def works_on(self) -> WorksOn:
        """See `StepBase`."""
        return "weights"
