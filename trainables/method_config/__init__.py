"""The section `compress`: one config class a method, one file a family.

Nothing heavier than pydantic is imported here.
"""

from typing import Annotated

from pydantic import Field

from trainables.method_config.base import CompressBase as CompressBase
from trainables.method_config.base import DistillFields as DistillFields
from trainables.method_config.base import DistillLoss as DistillLoss
from trainables.method_config.base import FinetuneConfig as FinetuneConfig
from trainables.method_config.base import LayerRole as LayerRole
from trainables.method_config.base import StepBase as StepBase
from trainables.method_config.binary import ActivationKind as ActivationKind
from trainables.method_config.binary import BinaryConfig as BinaryConfig
from trainables.method_config.binary import BinaryFields as BinaryFields
from trainables.method_config.binary import DabnConfig as DabnConfig
from trainables.method_config.binary import HybridConfig as HybridConfig
from trainables.method_config.binary import StqConfig as StqConfig
from trainables.method_config.combine import CombineConfig as CombineConfig
from trainables.method_config.combine import PipelineStep as PipelineStep
from trainables.method_config.combine import StepMethod as StepMethod
from trainables.method_config.dynamic import LkamConfig as LkamConfig
from trainables.method_config.post_training import PtqGroupConfig as PtqGroupConfig
from trainables.method_config.pruning import GroupSparsityConfig as GroupSparsityConfig
from trainables.method_config.pruning import L1PruneConfig as L1PruneConfig
from trainables.method_config.pruning import PruneFields as PruneFields
from trainables.method_config.structure import DecomposeConfig as DecomposeConfig
from trainables.method_config.structure import ExpandConfig as ExpandConfig
from trainables.method_config.structure import LowRankConfig as LowRankConfig
from trainables.method_config.structure import XnetConfig as XnetConfig

CompressConfig = Annotated[
    StepMethod | CombineConfig,
    Field(discriminator="method", description="compression after training; absent: none"),
]
