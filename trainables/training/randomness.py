"""All randomness of a trial: one generator per (seed, stream), nothing global."""

import hashlib

import torch

STREAMS: tuple[str, ...] = ("split", "init", "batches", "augmentation", "query", "calibration")


def generator(seed: int, stream: str) -> torch.Generator:
    """A fresh CPU generator whose state depends on (seed, stream) alone.

    Its seed is the first 63 bits of SHA-256("seed/stream"), so that the streams of one seed and the seeds of one
    stream are unrelated, on every machine.

    Raises:
        ValueError: `stream` is none of `STREAMS`.

    """
    if stream not in STREAMS:
        msg = f"random stream {stream!r} is unknown; the streams are {', '.join(STREAMS)}"
        raise ValueError(msg)
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
