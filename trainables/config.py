"""The config tree of one trial: every leaf a study may set, its default and its bounds.

Nothing heavier than pydantic is imported here, so that a study is checked and planned without a tensor library.
A resolved config (`resolve`) holds no `auto` and no native size left open: it is what keys are made of.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.data_config import Augment as Augment
from trainables.data_config import DataConfig
from trainables.method_config import ActivationKind as ActivationKind
from trainables.method_config import BinaryConfig as BinaryConfig
from trainables.method_config import BinaryFields as BinaryFields
from trainables.method_config import CompressBase as CompressBase
from trainables.method_config import CompressConfig
from trainables.method_config import FinetuneConfig as FinetuneConfig
from trainables.method_config import L1PruneConfig as L1PruneConfig
from trainables.method_config import LayerRole as LayerRole
from trainables.method_config import PruneFields as PruneFields
from trainables.method_config import StqConfig as StqConfig
from trainables.model_config import NATIVE_WIDTH, ModelConfig, Section
from trainables.select_config import SelectConfig

Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
Runtime = Literal["openvino", "onnxruntime", "packed", "skipping"]


# ResNet-8 on 8x8 digits measured 1.01, 1.11, 1.15 and 1.22 times the images per second with bf16 in four probes of one
# machine: there the answer would be noise, and with it every key of a study.
SMALLEST_PROBED_IMAGE = 16

MAX_ROUNDS = 2000
"""Rounds of one trajectory: each is a stage with a record, a stored trajectory and all query sizes up to its own."""


class TrainConfig(Section):
    """How the dense network is trained."""

    epochs: int = Field(default=30, ge=1, description="passes over the training images")
    optimizer: Literal["sgd"] = Field(default="sgd", description="SGD with Nesterov momentum")
    lr: float = Field(default=0.1, gt=0, description="largest learning rate of the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Nesterov momentum")
    weight_decay: float = Field(default=5e-4, ge=0, description="L2 decay of weights (BN and biases excluded)")
    batch_size: int = Field(default=128, ge=2, description="images per step")
    schedule: Literal["onecycle", "cosine"] = Field(default="onecycle", description="learning-rate schedule, per step")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where a probe gains"
    )


class CostConfig(Section):
    """What a multiply-accumulate counts in `mac_cost`, by the bits of its two sides; a full-precision one counts 1."""

    int8: float = Field(default=0.25, ge=0, le=1, description="8-bit inputs, weights of at most 8 bits")
    weight_only: float = Field(default=1.0, ge=0, le=1, description="weights of 1 or 2 bits, fp32 inputs")
    low_bit: float = Field(default=1 / 64, ge=0, le=1, description="weights and inputs of 1 or 2 bits")


class LatencyConfig(Section):
    """What is timed on this machine after all training is done."""

    runtimes: tuple[Runtime, ...] = Field(
        default=("openvino",), min_length=1, strict=False, description="what runs the exported network"
    )
    batch: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(1,), min_length=1, strict=False, description="images per call; the first one makes the columns"
    )
    threads: int = Field(default=1, ge=1, description="threads of the runtime")
    repeats: int = Field(default=30, ge=3, description="turns of each interleaved network")


class TrialConfig(Section):
    """One trial: a path of stages from data to a measured network."""

    data: DataConfig
    select: SelectConfig | None = None
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    compress: CompressConfig | None = None
    cost: CostConfig = CostConfig()
    latency: LatencyConfig | None = None

    @model_validator(mode="after")
    def _combination_is_possible(self) -> Self:
        if self.model.stem == "imagenet" and self.model.name != "resnet18":
            msg = f"model.stem imagenet needs model.name resnet18, not {self.model.name}"
            raise ValueError(msg)
        size = self.data.image_size or self.data.native_size
        if self.model.stem == "imagenet" and size < 32:
            msg = f"model.stem imagenet needs images of at least 32 pixels a side, not {size} (data.image_size)"
            raise ValueError(msg)
        if self.model.name == "vgg_small" and self.model.block == "bn_first":
            msg = "model.block bn_first needs residual blocks; vgg_small has none"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _images_suffice(self) -> Self:
        if not self.data.identified:
            return self
        data, images = self.data, self.data.facts().train_images
        if data.train_size is not None and data.train_size > images:
            msg = f"data.train_size {data.train_size} is more than the {images} of {data.name}"
            raise ValueError(msg)
        training, held_out, _ = data.split_sizes()
        if held_out < 1 or training < self.train.batch_size:
            tail = f", with data.imbalance {data.imbalance:g}," if data.imbalance > 1 else ""
            msg = (
                f"data.val_share {data.val_share} of {data.train_size or images} images{tail} leaves {training} to "
                f"train on and {held_out} for validation; needed are a batch (train.batch_size "
                f"{self.train.batch_size}) and 1"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _images_suffice_for_compression(self) -> Self:
        if self.compress is None or not self.data.identified:
            return self
        needed, training = self.compress.images_needed(), self.data.split_sizes()[0]
        if needed > training:
            msg = f"compress.images {needed} is more than the {training} training images of {self.data.name}"
            raise ValueError(msg)
        if self.select is not None and needed > self.select.budget:
            msg = f"compress.images {needed} is more than the {self.select.budget} images of select.budget"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _selection_fits_the_pool(self) -> Self:
        select = self.select
        if select is None or not self.data.identified:
            return self
        pool, classes = self.data.split_sizes()[0], self.data.facts().classes
        if select.locked_classes >= classes:
            msg = f"select.locked_classes {select.locked_classes} leaves none of the {classes} classes to ask for"
            raise ValueError(msg)
        if select.budget < select.initial:
            msg = f"select.budget {select.budget} is less than the {select.initial} labels of the initial draw"
            raise ValueError(msg + " (select.initial)")
        if select.budget > pool:
            msg = f"select.budget {select.budget} is more than the {pool} training images of the pool"
            raise ValueError(msg)
        sizes = select.rounds()
        if len(sizes) > MAX_ROUNDS:
            msg = f"select.query_sizes: {len(sizes):,} rounds to the budget; at most {MAX_ROUNDS:,}: ask for more a"
            raise ValueError(msg + " round")
        if (reached := select.initial + sum(sizes)) > pool:
            left = pool - reached + sizes[-1]
            msg = f"select.query_sizes: the last round asks for {sizes[-1]} images and {left} are left"
            raise ValueError(msg + f" of the {pool}; ask for fewer a round")
        asked, cap = max(sizes, default=0), select.canonical().pool_cap
        if cap is not None and cap <= asked:
            msg = f"select.pool_cap {cap} leaves no choice to a round that asks for {asked} images: chance would choose"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _few_bit_inputs_have_their_blocks(self) -> Self:
        cause = self.compress.few_bit_inputs() if self.compress else ""
        has_sums = self.model.ours and self.model.name != "vgg_small"
        if cause and has_sums and self.model.block == "standard":
            # Refused before the dense network is trained; networks from outside are only known once built.
            msg = f"compress.{cause} needs model.block bn_first, or vgg_small; {self.model.name} is standard"
            raise ValueError(msg)
        return self


def resolve(config: TrialConfig, precision: Precision) -> TrialConfig:
    """Fill in what the study left open, so that equal computations have equal configs.

    `precision` answers `train.precision: auto`; a precision that the study names stands.
    """
    facts = config.data.facts()
    data = {
        "image_size": config.data.image_size or facts.image_size,
        "train_size": config.data.train_size or facts.train_images,
        "augment": facts.augment if config.data.augment == "auto" else config.data.augment,
    }
    model = {"width": config.model.width or NATIVE_WIDTH.get(config.model.name)}
    train = {"precision": precision if config.train.precision == "auto" else config.train.precision}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update=model),
            "train": config.train.model_copy(update=train),
        }
    )
