"""What `model.json` of an exported folder holds. Imports no tensor library."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol, Self, runtime_checkable

from pydantic import AfterValidator, Field, model_validator

from trainables.config import Section

Format = Literal["packed", "onnx", "torch"]
Values = dict[str, str | int | float | bool]

MODEL_FILES: Mapping[Format, str] = {"packed": "model.packed", "onnx": "model.onnx", "torch": "model.pt2"}


def _printable(text: str) -> str:
    """Refuse what a terminal would obey."""
    if not text.isprintable():
        msg = f"{text!r} holds control characters"
        raise ValueError(msg)
    return text


Printable = Annotated[str, AfterValidator(_printable)]


@runtime_checkable
class SupportsItem(Protocol):
    """A number of numpy."""

    def item(self) -> Any:
        """The same as a number of Python."""


class Input(Section):
    """What the network takes: pixels in [0, 1], normalised as (pixel - mean) / std, fp32 (N, channels, size, size)."""

    channels: int = Field(ge=1, le=64)
    image_size: int = Field(ge=1, le=4096)
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]

    @model_validator(mode="after")
    def _one_a_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels:
            msg = f"{self.channels} channels need as many means and deviations, not {len(self.mean)}, {len(self.std)}"
            raise ValueError(msg)
        return self


class Check(Section):
    """How the file, loaded again into a runtime, predicts test images in comparison with the network it was made from.

    `agreement` is the share of images with the same class, `max_difference` that of any logit; `accuracy` is the
    file's own on these images.
    """

    runtime: Printable
    images: int
    agreement: float
    max_difference: float
    accuracy: float


class Facts(Section):
    """What `model.json` holds.

    `artifact_sha256` is of the packed file that the trial left; `config` and `measured` are columns of trials.parquet.
    """

    facts_version: Literal[1] = 1
    format: Format
    file: str
    sha256: str
    bytes: int
    input: Input
    classes: int = Field(ge=1, le=100_000)
    class_names: tuple[Printable, ...] | None
    int8: bool = False
    study: Printable
    trial_id: Printable
    artifact_sha256: str
    config: Values
    measured: Values
    checks: tuple[Check, ...] = ()
    versions: dict[str, str]

    @model_validator(mode="after")
    def _one_name_a_class(self) -> Self:
        if self.class_names is not None and len(self.class_names) != self.classes:
            msg = f"class_names holds {len(self.class_names)} names for {self.classes} classes"
            raise ValueError(msg)
        return self

    @property
    def identity(self) -> tuple[str, str, str]:
        """Two exports of equal identity are of the same thing."""
        return self.trial_id, self.format, self.artifact_sha256


def plain_values(row: Mapping[str, Any], names: Iterable[str]) -> Values:
    """The values of `names` in `row` as plain numbers and words; what is missing is left out."""
    found: Values = {}
    for name in names:
        value = row.get(name)
        plain: Any = value.item() if isinstance(value, SupportsItem) else value
        if isinstance(plain, str | int | float | bool) and plain == plain:
            found[name] = plain
    return found
