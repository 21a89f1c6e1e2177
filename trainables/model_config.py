"""The part of a trial's config that says which network, and what every part of the config is."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from trainables.model_names import CODE_PATTERN, ModelNames, is_code

NATIVE_WIDTH: dict[str, int] = {
    **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet32", "resnet56"), 16),
    "resnet18": 64,
    "vgg_small": 128,
}

MODEL_NAMES = ModelNames(own=tuple(NATIVE_WIDTH))


class Section(BaseModel):
    """A frozen part of the tree; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class ModelConfig(Section):
    """Which network: ours, one of torchvision's, or a user's own `package.module:function`."""

    name: Annotated[
        str,
        MODEL_NAMES,
        WithJsonSchema({"anyOf": [{"enum": list(MODEL_NAMES.words)}, {"type": "string", "pattern": CODE_PATTERN}]}),
    ] = Field(description="architecture; torchvision's have random first weights")
    width: int | None = Field(default=None, ge=1, le=1024, description="filters of the first stage; null: the paper's")
    stem: Literal["cifar", "imagenet"] = Field(default="cifar", description="first layers; imagenet: 7x7, pooling")
    block: Literal["standard", "bn_first"] = Field(default="standard", description="conv-BN-ReLU, or BN-ReLU-conv")
    code_sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="of the sources of a user's own model; filled in by the plan",
        json_schema_extra={"readOnly": True},
    )

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if fault := MODEL_NAMES.fault(name):
            raise ValueError(fault)
        return name

    @property
    def ours(self) -> bool:
        """Whether the network is defined here, so that width, stem and block shape it."""
        return self.name in NATIVE_WIDTH

    @model_validator(mode="after")
    def _leaves_fit_the_network(self) -> Self:
        if self.code_sha256 is not None and not is_code(self.name):
            msg = f"model.code_sha256 belongs to a model of your own (package.module:function), not to {self.name}"
            raise ValueError(msg)
        shaped = [leaf for leaf in ("width", "stem", "block") if getattr(self, leaf) != _default(type(self), leaf)]
        if shaped and not self.ours:
            msg = f"model.{shaped[0]} has no effect on {self.name}; only our own networks have it: remove it"
            raise ValueError(msg)
        return self


def _default(section: type[Section], leaf: str) -> object:
    return section.model_fields[leaf].default
