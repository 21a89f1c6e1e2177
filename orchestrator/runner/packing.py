"""How small a share of a GPU a stage can do with, by what its like was seen to need. Pure."""

from collections.abc import Iterable

from orchestrator.estimate import workload
from orchestrator.ledger import StageRecord
from trainables.keys import Stage

PARTS = (8, 6, 4, 3, 2)
"""Into how many a GPU may be parted: few sizes, so that a worker that has one can be used again for the next stage."""

MARGIN = 1.1
"""More than was seen: the same work needs a little more where memory lies in other pieces."""

CONTEXT_BYTES = 2**30
"""What a process holds of a GPU beside its tensors: the driver's context and the libraries' kernels. A rough figure."""


def share_for(need_bytes: int, gpu_bytes: int) -> float:
    """The smallest share of a GPU of `gpu_bytes` in which a process of `need_bytes` of tensors has its place."""
    held = need_bytes * MARGIN + CONTEXT_BYTES
    return next((1 / parts for parts in PARTS if parts * held <= gpu_bytes), 1.0)


class GpuNeeds:
    """The most that stages of each workload held of a GPU, and the smallest GPU that they were seen on."""

    def __init__(self, records: Iterable[StageRecord] = ()) -> None:
        self._peaks: dict[str, int] = {}
        self._smallest: int | None = None
        for record in records:
            self.learn(record)

    def learn(self, record: StageRecord) -> None:
        """Take a finished stage into account."""
        if record.status != "complete" or record.peak_gpu_bytes is None or record.gpu_bytes is None:
            return
        self._peaks[record.workload] = max(record.peak_gpu_bytes, self._peaks.get(record.workload, 0))
        self._smallest = min(record.gpu_bytes, self._smallest or record.gpu_bytes)

    def share(self, stage: Stage) -> float:
        """The share for a stage: a whole GPU until one like it was seen."""
        peak = self._peaks.get(workload(stage))
        return 1.0 if peak is None or self._smallest is None else share_for(peak, self._smallest)
