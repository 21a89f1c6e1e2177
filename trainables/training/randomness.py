"""All randomness of a trial: one generator per (seed, stream), nothing global."""

import hashlib
import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from trainables.config import Device

STREAMS: tuple[str, ...] = (
    "split",
    "init",
    "batches",
    "augmentation",
    "query",
    "memory",
    "classes",
    "calibration",
    "layers",
    "imbalance",
    "label_noise",
    "method",
)


def generator(seed: int, stream: str, part: int | None = None) -> torch.Generator:
    """A fresh CPU generator whose state depends on (seed, stream) alone, and on `part` where a stream has several.

    Its seed is the first 63 bits of SHA-256("seed/stream") or SHA-256("seed/stream/part"), so that the streams of one
    seed and the seeds of one stream are unrelated, on every machine.

    Raises:
        ValueError: `stream` is none of `STREAMS`.

    """
    if stream not in STREAMS:
        msg = f"random stream {stream!r} is unknown; the streams are {', '.join(STREAMS)}"
        raise ValueError(msg)
    digest = hashlib.sha256((f"{seed}/{stream}" if part is None else f"{seed}/{stream}/{part}").encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_seed(source: torch.Generator) -> int:
    """A seed for `isolated`, of 63 bits."""
    return int(torch.randint(2**63 - 1, (), generator=source))


@contextmanager
def isolated(seed: int, device: Device = "cpu") -> Generator[None]:
    """For the time of a block, begin every global random state from `seed`; then put the former ones back.

    For code that knows global states alone: constructors that draw their weights, dropout, a user's own model. The
    states are those of torch (and of the GPU, where it is the device), numpy and `random`.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device == "cuda":
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def global_states(device: Device) -> dict[str, Tensor]:
    """The states that `isolated` keeps apart, as they are now, as tensors on the CPU."""
    version, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state()
    states = {
        "torch": torch.default_generator.get_state(),
        "numpy": torch.tensor([place, has_gauss, *map(int, keys)]),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
        "python": torch.tensor([version, *words]),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
    }
    return states | ({"gpu": torch.cuda.get_rng_state()} if device == "cuda" else {})


def set_global_states(states: Mapping[str, Tensor], device: Device) -> None:
    """Put back what `global_states` gave.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: a state is missing, or none of its generator's.

    """
    torch.default_generator.set_state(states["torch"])
    if device == "cuda":
        torch.cuda.set_rng_state(states["gpu"])
    place, has_gauss, *keys = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), place, has_gauss, float(states["numpy_gauss"])))
    version, *words = states["python"].tolist()
    gauss: list[float] = states["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
