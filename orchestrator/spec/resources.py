"""What a stage is given, and what is done when that was not enough."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.failures import RETRIES, Retried
from trainables.config import Device
from trainables.keys import StageKind


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stage is given.

    `memory` are bytes that its worker may hold in all, `timeout_s` seconds that one attempt may take; None is no limit.
    A `packed` stage is given as small a share of a GPU as its like was seen to need, and `gpus` until that is known.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory: int | None = None
    device: Device = "cpu"
    timeout_s: float | None = None
    packed: bool = False

    @property
    def place(self) -> tuple[int, float, int | None, Device]:
        """What a worker must have: processors, GPUs, memory and device class."""
        return self.cpus, self.gpus, self.memory, self.device


@dataclass(frozen=True, slots=True)
class Resources:
    """What the stages of a study are given: `worker`, but for the kinds of stage that have something of their own."""

    worker: Demand = field(default_factory=Demand)
    kinds: Mapping[StageKind, Demand] = field(default_factory=dict)

    def of(self, kind: StageKind) -> Demand:
        """What a stage of a kind is given."""
        return self.kinds.get(kind, self.worker)

    @property
    def demands(self) -> tuple[Demand, ...]:
        """Whatever a worker of the study may have to give."""
        return tuple(dict.fromkeys((self.worker, *self.kinds.values())))

    @property
    def device(self) -> Device:
        """The device class of training."""
        return self.of("train").device

    @property
    def devices(self) -> Mapping[StageKind, Device]:
        """The device class of each kind of stage."""
        return {kind: self.of(kind).device for kind in ("select", "train", "compress", "evaluate")}


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how, a stage is tried again that failed.

    `memory` and `timeouts_s` are ladders: another attempt gets the next larger step.
    """

    times: Mapping[Retried, int] = field(default_factory=lambda: dict(RETRIES))
    memory: tuple[int, ...] = ()
    timeouts_s: tuple[float, ...] = ()
