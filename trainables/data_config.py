"""The part of a trial's config that says which images, and how many of them."""

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from trainables.model_config import Section

Augment = Literal["none", "shift", "crop_flip"]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known of a data set before it is loaded.

    `train_images` counts all images that are not test images; validation images are taken out of them.
    `fingerprint` is part of every key that depends on the data: it changes when the images do.
    """

    image_size: int
    channels: int
    classes: int
    train_images: int
    test_images: int
    augment: Augment
    fingerprint: str


DATASETS: dict[str, DataFacts] = {
    "digits": DataFacts(8, 1, 10, 1437, 360, "none", "sklearn:optical-digits:1797"),
    "mnist": DataFacts(28, 1, 10, 60_000, 10_000, "shift", "torchvision:MNIST"),
    "fashion_mnist": DataFacts(28, 1, 10, 60_000, 10_000, "crop_flip", "torchvision:FashionMNIST"),
    "cifar10": DataFacts(32, 3, 10, 50_000, 10_000, "crop_flip", "torchvision:CIFAR10"),
    "cifar100": DataFacts(32, 3, 100, 50_000, 10_000, "crop_flip", "torchvision:CIFAR100"),
}
"""The sets whose facts are known beforehand; those of an imagefolder are found out by the plan."""

FOLDER_IMAGE_SIZE = 32
FOLDER_CHANNELS = 3
FOLDER_LEAVES = (
    "folder", "labels", "classes", "channels", "test_share", "fingerprint", "train_images", "test_images",
)  # fmt: skip
"""What only an imagefolder has."""


class DataConfig(Section):
    """Which images, and how many of them."""

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagefolder"] = Field(
        description="data set; imagefolder: images of your own"
    )
    folder: str | None = Field(
        default=None, description="imagefolder: of a folder per class, or of images with a labels file; in --data-root"
    )
    labels: str | None = Field(
        default=None, description="imagefolder: CSV file in the folder with the columns file,label; null: class folders"
    )
    classes: tuple[str, ...] = Field(
        default=(), strict=False, description="imagefolder: what a labels file may say, in order; empty: what it says"
    )
    image_size: int | None = Field(
        default=None, ge=8, le=512, description="pixels a side; null: the set's own size, 32 of an imagefolder"
    )
    channels: int | None = Field(
        default=None, ge=1, le=3, description="imagefolder: 1 reads images as grey, 3 (null) as colours"
    )
    train_size: int | None = Field(default=None, ge=10, description="training and validation images in all; null: all")
    val_share: float = Field(default=0.1, gt=0, lt=1, description="share of them held out for validation")
    test_share: float | None = Field(
        default=None, gt=0, lt=1, description="imagefolder: test images, where no folders train and test are; null: 0.2"
    )
    augment: Literal["auto", "none", "shift", "crop_flip"] = Field(default="auto", description="training augmentation")
    imbalance: float = Field(
        default=1.0, ge=1, description="training images of the first class for one of the last; falls exponentially"
    )
    label_noise: float = Field(default=0.0, ge=0, lt=1, description="share of training labels that are made wrong")
    fingerprint: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="of an imagefolder's images and labels; filled in by the plan",
        json_schema_extra={"readOnly": True},
    )
    train_images: int | None = Field(
        default=None,
        ge=0,
        description="an imagefolder's images that are not for testing",
        json_schema_extra={"readOnly": True},
    )
    test_images: int | None = Field(
        default=None, ge=0, description="an imagefolder's test images", json_schema_extra={"readOnly": True}
    )

    @field_validator("folder", "labels")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            msg = "is empty text; name a folder (data.folder) or a file in it (data.labels)"
            raise ValueError(msg)
        return name

    @field_validator("channels")
    @classmethod
    def _grey_or_colours(cls, channels: int | None) -> int | None:
        if channels == 2:
            msg = "2 is neither 1 (grey) nor 3 (colours)"
            raise ValueError(msg)
        return channels

    @field_validator("classes")
    @classmethod
    def _different(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for number, name in enumerate(classes) if name in classes[:number]]:
            msg = f"{twice[0]!r} is there twice; keep one"
            raise ValueError(msg)
        return classes

    @model_validator(mode="after")
    def _leaves_fit_the_set(self) -> Self:
        if self.name == "imagefolder":
            if self.folder is None:
                msg = "data.folder is required by an imagefolder: a folder of images, in --data-root or absolute"
                raise ValueError(msg)
            if self.classes and self.labels is None and self.fingerprint is None:
                msg = "data.classes belongs to a labels file (data.labels); class folders name their classes: remove it"
                raise ValueError(msg)
            if self.labels and (spaced := [name for name in self.classes if not name or name != name.strip()]):
                msg = f"data.classes: no row of a labels file says {spaced[0]!r}, as spaces around a label are dropped"
                raise ValueError(msg)
            return self
        given = [leaf for leaf in FOLDER_LEAVES if getattr(self, leaf) != type(self).model_fields[leaf].default]
        if given:
            msg = f"data.{given[0]} has no effect on {self.name}; only an imagefolder has it: remove it"
            raise ValueError(msg)
        return self

    @property
    def identified(self) -> bool:
        """Whether the facts are known: of an imagefolder they are once `trainables.data.folder` has looked at it."""
        return self.name != "imagefolder" or self.fingerprint is not None

    @property
    def native_size(self) -> int:
        """Pixels a side where `image_size` leaves them open."""
        return FOLDER_IMAGE_SIZE if self.name == "imagefolder" else DATASETS[self.name].image_size

    def facts(self) -> DataFacts:
        """What is known of the images.

        Raises:
            ValueError: they are an imagefolder's, at which nobody has looked yet.

        """
        if self.name != "imagefolder":
            return DATASETS[self.name]
        if self.fingerprint is None:
            msg = f"the images of data.folder {self.folder} are not identified (trainables.data.identify)"
            raise ValueError(msg)
        return DataFacts(
            image_size=FOLDER_IMAGE_SIZE,
            channels=self.channels or FOLDER_CHANNELS,
            classes=len(self.classes),
            train_images=self.train_images or 0,
            test_images=self.test_images or 0,
            augment="crop_flip",
            fingerprint=self.fingerprint,
        )

    def split_sizes(self) -> tuple[int, int, int]:
        """How many images there are for training, validation and testing.

        With `imbalance` the first is an estimate: it takes the classes for equally large before the cut.
        """
        facts = self.facts()
        images = self.train_size or facts.train_images
        held_out = round(images * self.val_share)
        last = max(1, facts.classes - 1)
        left = sum(self.imbalance ** (-k / last) for k in range(facts.classes)) / max(1, facts.classes)
        return round((images - held_out) * left), held_out, facts.test_images

    def key_leaves(self) -> dict[str, Any]:
        """What stands of it in a key: content, not where it lies."""
        leaves = self.model_dump(exclude_defaults=True, exclude={"folder", "labels"})
        return leaves | {"fingerprint": self.facts().fingerprint}
