"""A pipeline of methods: its config, and what order is possible."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, TypeAdapter, ValidationError, WithJsonSchema, field_serializer, model_validator

from trainables.method_config.base import CompressBase, FinetuneConfig, Remains, StepBase
from trainables.method_config.binary import BinaryConfig, DabnConfig, HybridConfig, StqConfig
from trainables.method_config.dynamic import LkamConfig
from trainables.method_config.post_training import PtqGroupConfig
from trainables.method_config.pruning import GroupSparsityConfig, L1PruneConfig
from trainables.method_config.structure import DecomposeConfig, ExpandConfig, LowRankConfig, XnetConfig
from trainables.model_config import Section

MOST_STEPS = 4

StepMethod = (
    StqConfig
    | BinaryConfig
    | DabnConfig
    | HybridConfig
    | L1PruneConfig
    | GroupSparsityConfig
    | DecomposeConfig
    | LowRankConfig
    | ExpandConfig
    | XnetConfig
    | LkamConfig
    | PtqGroupConfig
    | FinetuneConfig
)
"""Every method but the pipeline."""

_STEP: TypeAdapter[StepBase] = TypeAdapter(Annotated[StepMethod, Field(discriminator="method")])

_LAST: Mapping[Remains, str] = {
    "few bits": "weights of few bits, which training on would lose",
    "gates": "kernels with gates, which no method trains on",
}
_NAME = re.compile(r"([1-9])_\w+")
_EXAMPLE = "steps: {1_expand: {method: expand}, 2_stq: {method: stq, pfr: 0.4}}"


class NamedStep(Section):
    """A method of a pipeline under its name, `2_stq`."""

    name: str
    config: StepBase

    def text(self) -> str:
        """The step in one line, from which it can be read back."""
        return f"{self.name}={_leaves(self.config)}"


def _leaves(config: CompressBase) -> str:
    fields = config.model_dump(exclude_defaults=True) | {"method": getattr(config, "method", "")}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


class PipelineStep(CompressBase):
    """One step of a pipeline as a stage of its own; made by the plan, never by a study.

    `text` is what its key holds of it.
    """

    method: Literal["combine"] = "combine"
    number: int
    text: str
    inner: CompressBase = Field(exclude=True)

    def trained(self) -> CompressBase:
        """The method that the stage trains."""
        return self.inner.model_copy(update={"epochs": self.epochs})

    def trained_epochs(self) -> int:
        """Of the method."""
        return self.inner.trained_epochs() and self.epochs


class CombineConfig(CompressBase):
    """Methods one after the other, each from the network that the one before it left."""

    method: Literal["combine"] = "combine"
    steps: Annotated[
        tuple[NamedStep, ...],
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "object", "required": ["method"]}}),
    ] = Field(default=(), description="methods by name, numbered from 1: {1_expand: {method: expand}, 2_stq: ...}")
    epochs: int = Field(
        default=0, description="of all steps together, over all images", json_schema_extra={"readOnly": True}
    )
    lr: float = Field(default=0.0, description="the largest of all steps", json_schema_extra={"readOnly": True})

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = cast("Mapping[str, Any]", given)
        steps = _steps(fields.get("steps", {}))
        totals = {"epochs": sum(step.config.passes() for step in steps), "lr": max(step.config.lr for step in steps)}
        return {**fields, "steps": steps, **totals}

    @model_validator(mode="after")
    def _can_follow_one_another(self) -> Self:
        for earlier, later in ((a, b) for n, b in enumerate(self.steps) for a in self.steps[:n]):
            if (reason := _impossible(earlier.config, later.config)) is not None:
                msg = f"steps.{later.name} cannot come after {earlier.name}: {reason}"
                raise ValueError(msg)
        return self

    @field_serializer("steps")
    def _as_texts(self, steps: tuple[NamedStep, ...]) -> tuple[str, ...]:
        return tuple(step.text() for step in steps)

    def stages(self) -> tuple[CompressBase, ...]:
        """A stage for each step."""
        return tuple(_stage(number, step.config.canonical()) for number, step in enumerate(self.steps, 1))

    def images_needed(self) -> int:
        """The most that a step needs."""
        return max(step.config.images_needed() for step in self.steps)

    def few_bit_inputs(self) -> str:
        """Of the last step."""
        return self.steps[-1].config.few_bit_inputs()

    def same_bits(self) -> CompressBase | None:
        """Of the last step, trained as long as all steps together."""
        last = self.steps[-1].config.same_bits()
        return None if last is None else last.model_copy(update={"epochs": self.epochs})


def _stage(number: int, config: CompressBase) -> PipelineStep:
    return PipelineStep(number=number, text=_leaves(config), inner=config, epochs=config.epochs, lr=config.lr)


def _steps(given: Any) -> tuple[NamedStep, ...]:
    """The steps of a mapping by name, or of what `NamedStep.text` wrote.

    Raises:
        ValueError: it is no pipeline.

    """
    named: list[tuple[str, Any]]
    if isinstance(given, Mapping):
        named = list(cast("Mapping[str, Any]", given).items())
    elif isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(_read_back(item) for item in cast("Sequence[object]", given))
    else:
        named = []
    if not 2 <= len(named) <= MOST_STEPS:
        msg = f"steps holds {len(named)} methods; 2 to {MOST_STEPS} make a pipeline, as in {_EXAMPLE}"
        raise ValueError(msg)
    return tuple(_step(number, str(name), leaves) for number, (name, leaves) in enumerate(named, 1))


def _read_back(item: object) -> NamedStep:
    if isinstance(item, NamedStep):
        return item
    name, _, text = str(item).partition("=")
    return NamedStep(name=name, config=_STEP.validate_json(text))


def _step(number: int, name: str, leaves: Any) -> NamedStep:
    found = _NAME.fullmatch(name)
    if found is None or int(found[1]) != number:
        msg = f"steps.{name}: the {number}. step is named {number}_something: names tell the order, as in {_EXAMPLE}"
        raise ValueError(msg)
    try:
        return NamedStep(name=name, config=_STEP.validate_python(leaves))
    except ValidationError as error:
        told = error.errors(include_url=False)[0]
        place = ".".join(["steps", name, *(str(part) for part in told["loc"][1:])])
        unknown = f"is no leaf of {told['loc'][0]}" if told["type"] == "extra_forbidden" and told["loc"] else ""
        msg = f"{place}: {unknown or told['msg']}"
        raise ValueError(msg) from error


def _impossible(earlier: StepBase, later: StepBase) -> str | None:
    """Why one method cannot come after another; None if it can."""
    first, second = str(getattr(earlier, "method", "")), str(getattr(later, "method", ""))
    remains = earlier.remains()
    if remains in _LAST:
        return f"{first} leaves {_LAST[remains]}; it comes last"
    if remains == "groups" and later.works_on() == "channels":
        return f"the channels that {first} gathers cannot be cut; prune before it"
    if remains == "groups" and later.works_on() == "layers":
        return f"{first} leaves convolutions of groups, which {second} cannot work on"
    return None
