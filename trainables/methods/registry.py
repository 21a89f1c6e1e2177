"""Which config selects which method."""

from collections.abc import Callable
from typing import Any

from trainables.config import CompressBase, FinetuneConfig, L1PruneConfig, StqConfig
from trainables.method_config import (
    DabnConfig,
    DecomposeConfig,
    DistillFields,
    ExpandConfig,
    GroupSparsityConfig,
    HybridConfig,
    LkamConfig,
    LowRankConfig,
    PtqGroupConfig,
    XnetConfig,
)
from trainables.methods.base import Method
from trainables.methods.dabn import Dabn
from trainables.methods.decompose import Decompose
from trainables.methods.distilled import Distilled
from trainables.methods.expand import Expand
from trainables.methods.finetune import Finetune
from trainables.methods.group_sparsity import GroupSparsity
from trainables.methods.hybrid import Hybrid
from trainables.methods.l1_prune import L1Prune
from trainables.methods.lkam import Lkam
from trainables.methods.low_rank import LowRank
from trainables.methods.ptq_group import PtqGroup
from trainables.methods.stq import Stq
from trainables.methods.xnet import Xnet

METHODS: dict[type[CompressBase], Callable[[Any], Method]] = {
    StqConfig: Stq,
    L1PruneConfig: L1Prune,
    FinetuneConfig: Finetune,
    DabnConfig: Dabn,
    HybridConfig: Hybrid,
    DecomposeConfig: Decompose,
    ExpandConfig: Expand,
    GroupSparsityConfig: GroupSparsity,
    LowRankConfig: LowRank,
    PtqGroupConfig: PtqGroup,
    XnetConfig: Xnet,
    LkamConfig: Lkam,
}


def create(config: CompressBase, seed: int = 0) -> Method:
    """A fresh method for `config`, by the type of its canonical form (`binary` is STQ at PFR 0), distilled where asked.

    A pipeline is none: each of its steps is a stage with a method of its own.
    """
    canonical = config.trained().canonical()
    method = METHODS[type(canonical)](canonical)
    method.seed = seed
    if isinstance(canonical, DistillFields) and canonical.follows():
        return Distilled(method, canonical)
    return method
