"""What `model.json` of an exported folder holds. Imports no tensor library."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from trainables.config import Section

Format = Literal["packed", "onnx", "torch"]
Values = dict[str, str | int | float | bool]

MODEL_FILES: Mapping[Format, str] = {"packed": "model.packed", "onnx": "model.onnx", "torch": "model.pt2"}


@runtime_checkable
class SupportsItem(Protocol):
    """A number of numpy."""

    def item(self) -> Any:
        """The same as a number of Python."""


class Input(Section):
    """What the network takes: pixels in [0, 1], normalised as (pixel - mean) / std, fp32 (N, channels, size, size)."""

    channels: int = Field(ge=1, le=64)
    image_size: int = Field(ge=1, le=4096)
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Check(Section):
    """How the file, loaded again into a runtime, predicts test images in comparison with the network it was made from.

    `agreement` is the share of images with the same class, `max_difference` that of any logit; `accuracy` is the
    file's own on these images.
    """

    runtime: str
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
    class_names: tuple[str, ...] | None
    int8: bool = False
    study: str
    trial_id: str
    artifact_sha256: str
    config: Values
    measured: Values
    checks: tuple[Check, ...] = ()
    versions: dict[str, str]

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
