"""What every stage takes and gives: a pure function of its config, its seed and its parent's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.load import Dataset
from trainables.export import compact
from trainables.export.packed import PackedHeader
from trainables.models.build import build
from trainables.models.compact import Compact


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage gives: its output as bytes, numbers for the table, and a record per epoch.

    `before_s` are the seconds of work that the checkpoint held from which the stage went on; 0 without one.
    """

    artifact: bytes
    metrics: Mapping[str, float | int | None]
    history: Sequence[Mapping[str, float]] = ()
    before_s: float = 0.0


def empty_model(config: TrialConfig, data: Dataset) -> nn.Module:
    """The dense architecture, its weights not yet set.

    A stage's config was planned, and no plan holds a user's own code without --allow-code.
    """
    return build(config.model, channels=int(data.mean.numel()), classes=data.classes, allow_code=True)


def only(data: Dataset, labelled: Tensor | None) -> Dataset:
    """The same data with the training images at `labelled`, int64, alone; None: with all of them.

    Mean and standard deviation stay those of all images, which takes no label.
    """
    return data if labelled is None else replace(data, train=data.train.subset(labelled))


def restore(config: TrialConfig, data: Dataset, artifact: bytes) -> Compact:
    """The network of an earlier stage, cut and quantized as it was; `kept` is empty.

    Raises:
        TrialError: the artifact cannot be read, or is of another network.

    """
    return compact.restore(empty_model(config, data), artifact)


def header(config: TrialConfig, data: Dataset) -> PackedHeader:
    """What a packed file of this trial says of its network and its images."""
    return PackedHeader(
        model=config.model,
        channels=int(data.mean.numel()),
        classes=data.classes,
        image_size=int(data.test.images.shape[-1]),
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
    )
