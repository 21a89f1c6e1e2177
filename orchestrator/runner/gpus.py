"""What a stage holds of a GPU, and how it is kept to its share."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trainables.config import Device


@dataclass(slots=True)
class GpuUse:
    """Bytes that a stage held of its GPU, with what was reserved for it, and bytes of the GPU itself; None on a CPU."""

    peak: int | None = None
    total: int | None = None


@contextmanager
def measured_gpu(device: Device) -> Generator[GpuUse]:
    """Measure what the body holds of the GPU of this process; only what it has itself reserved counts."""
    use = GpuUse()
    if device == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        use.total = torch.cuda.get_device_properties().total_memory
    try:
        yield use
    finally:
        if use.total is not None:
            use.peak = torch.cuda.max_memory_reserved()


def hold_to_share(gpus: float) -> None:
    """Let this process run out of GPU memory at its share, rather than its neighbours."""
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
