"""A tiny setting of every method, and what trains it on a few digits."""

import copy
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.config import (
    CompressConfig,
    DataConfig,
    FinetuneConfig,
    L1PruneConfig,
    ModelConfig,
    StqConfig,
    TrialConfig,
    resolve,
)
from trainables.data.load import Dataset, load, normalise
from trainables.export.packed import PackedHeader
from trainables.method_config import (
    DabnConfig,
    DecomposeConfig,
    ExpandConfig,
    GroupSparsityConfig,
    HybridConfig,
    LkamConfig,
    LowRankConfig,
    PtqGroupConfig,
    XnetConfig,
)
from trainables.methods.base import Method
from trainables.methods.registry import create
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.training.loop import Settings, fit
from trainables.training.randomness import generator

torch.set_num_threads(1)

TINY: dict[str, CompressConfig] = {
    "stq": StqConfig(pfr=0.4, scope="all", epochs=6, lr=0.1),
    "threshold mode": StqConfig(mode="threshold", max_zero_share=0.5, min_filters=2, epochs=6, lr=0.1),
    "global budget": StqConfig(pfr=0.3, budget="global", min_filters=2, score="mean_abs", epochs=6, lr=0.1),
    "ternary weights": StqConfig(pfr=0.2, weights="ternary", epochs=6, lr=0.1),
    "two values": StqConfig(pfr=0.2, scale="two_valued", epochs=6, lr=0.1),
    "int8 inputs": StqConfig(pfr=0.2, activations="int8", epochs=6, lr=0.1),
    "sign inputs": StqConfig(pfr=0.2, scope="all", activations="sign", epochs=6, lr=0.1),
    "ternary both": StqConfig(pfr=0.2, weights="ternary", activations="ternary", epochs=6, lr=0.1),
    "distilled": StqConfig(pfr=0.4, distill=0.5, temperature=2.0, epochs=6, lr=0.1),
    "l1_prune": L1PruneConfig(pfr=0.4, scope="inner", epochs=6, lr=0.1),
    "finetune": FinetuneConfig(epochs=6, lr=0.1),
    "decompose": DecomposeConfig(width_share=0.5, epochs=6, lr=0.1),
    "dabn": DabnConfig(epochs=6, lr=0.1),
    "dabn of float inputs": DabnConfig(activations="float", epochs=6, lr=0.1),
    "hybrid": HybridConfig(ratio=0.5, epochs=6, lr=0.1),
    "xnet": XnetConfig(reduction=2, keep=("first",), epochs=8, lr=0.1),
    "xnet in blocks": XnetConfig(reduction=3, block=2, init="parent", epochs=6, lr=0.1),
    "xnet of groups": XnetConfig(reduction=2, graph="groups", epochs=6, lr=0.1),
    "expand": ExpandConfig(factor=2, epochs=6, lr=0.05),
    "expand from nothing": ExpandConfig(factor=2, init="random", nonlinear_share=0.3, epochs=6, lr=0.05),
    "group_sparsity": GroupSparsityConfig(penalty=0.06, scope="all", epochs=12, lr=0.1),
    "group_sparsity by epochs": GroupSparsityConfig(
        penalty=0.25, sparse_share=0.5, period="epoch", cut="end", epochs=8
    ),
    "lkam": LkamConfig(active_share=0.2, gain=40, removal_share=0.2, epochs=8, lr=0.1),
    "lkam, soft to the end": LkamConfig(gain=10, soft_share=1, removal_share=0.3, threshold=0.6, epochs=6, lr=0.1),
    "low_rank": LowRankConfig(penalty=0.2, energy=0.8, keep=("first",), epochs=6, lr=0.1),
    "ptq_group": PtqGroupConfig(weight_bits=3, groups=2, images=100, block_steps=40, epochs=2, lr=0.001),
    "ptq_group of ranges": PtqGroupConfig(
        weight_bits=2,
        groups=3,
        grouping="range",
        activation_bits=4,
        blocks="layer",
        block_steps=40,
        epochs=2,
        images=99,
    ),
    "ptq_group of float inputs": PtqGroupConfig(activation_bits=None, images=100, blocks="none", epochs=2, lr=0.001),
    "low_rank at the end": LowRankConfig(penalty=0.3, energy=0.95, split_at=1, epochs=6, lr=0.1),
}


MODEL = ModelConfig(name="resnet8", width=6)
BN_FIRST = ModelConfig(name="resnet8", width=6, block="bn_first")


@cache
def images() -> Dataset:
    config = TrialConfig(data=DataConfig(name="digits", train_size=800), model=MODEL)
    return load(resolve(config, "fp32").data, 0, Path())


def dense(data: Dataset, config: ModelConfig) -> nn.Module:
    model = build(config, 1, 10)
    initialise(model, generator(0, "init"))
    fit(model, data, settings(4, lr=0.1), 0)
    return model


def settings(epochs: int, lr: float = 0.05) -> Settings:
    return Settings(epochs, lr, 0.9, 5e-4, 60, "onecycle", 0.0, "fp32", "none", "cpu")


def header(data: Dataset, model: ModelConfig = MODEL) -> PackedHeader:
    mean, std = tuple(data.mean.tolist()), tuple(data.std.tolist())
    return PackedHeader(model=model, channels=1, classes=10, image_size=8, mean=mean, std=std)


def trained(parent: nn.Module, data: Dataset, config: CompressConfig) -> tuple[nn.Module, Method]:
    """A copy of the parent after the method's training, not finalized."""
    model, method = copy.deepcopy(parent), create(config)
    method.transform(model, normalise(data.train.images[:1], data))
    method.calibrate(model, normalise(data.train.images[:100], data))
    fit(model, data, settings(config.epochs, config.lr), 0, method)
    return model, method


def facts(network: Compact) -> tuple[object, ...]:
    """What a stored network says of itself beside its tensors."""
    return network.bits, network.activations, network.input_bits, network.edits, network.grids


def assert_same(logits: Tensor, expected: Tensor, share: float = 1.0) -> None:
    """Equal up to rounding for at least `share` of the images."""
    close = (torch.isclose(logits, expected, rtol=1e-4, atol=1e-4)).all(1) & (logits.argmax(1) == expected.argmax(1))
    assert float(close.float().mean()) >= share
