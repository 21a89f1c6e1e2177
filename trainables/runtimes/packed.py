"""The packed runtime: networks with activations of 1 or 2 bits, on bit kernels compiled for the machine.

A network becomes a list of operations on packed activations that one compiled function runs. BN, scales and the next
activation quantizer are folded into the convolution before them: into integer thresholds where nothing else needs the
sums, else into one fp32 scale and shift beside the residual.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from trainables.kernels.fields import Op, Pass
from trainables.kernels.maps import Prepared, Row, place, prepare
from trainables.kernels.program import program
from trainables.models.compact import Compact
from trainables.runtimes.base import Images, Logits
from trainables.runtimes.packed_compiler import compile_rows

# Images that pass through the network together: more do not fit the caches, fewer do not fill the tiles of small maps.
TOGETHER = 8


class PackedPredictor:
    """A network on the bit kernels; images (N, C, H, W), fp32 and C-contiguous, to logits (N, classes).

    Memory is prepared on the first call with a batch size and used again. Calls must not overlap in time.
    """

    def __init__(self, rows: Sequence[Row], image_shape: tuple[int, int, int], classes: int, threads: int) -> None:
        """Run placed `rows` on images of shape (C, H, W); more than one thread share the images of a batch."""
        self.rows = rows
        self.image_shape = image_shape
        self.classes = classes
        self.threads = threads
        self.first = next(i for i, row in enumerate(rows) if row.op is Op.IMAGE)
        self.last = next(i for i, row in enumerate(rows) if row.op is Op.LINEAR)
        self.prepared: list[dict[int, Prepared]] = [{} for _ in range(threads)]
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __call__(self, images: Images) -> Logits:
        """Logits (N, classes).

        Raises:
            ValueError: images of another shape or type than the network was compiled for.

        """
        if images.shape[1:] != self.image_shape or images.dtype != np.float32 or not images.flags.c_contiguous:
            msg = (
                f"images are {images.dtype} {images.shape}, want C-contiguous float32 (N, "
                f"{', '.join(map(str, self.image_shape))})"
            )
            raise ValueError(msg)
        logits = np.empty((len(images), self.classes), np.float32)
        if self.pool is None or len(images) == 1:
            self._share(0, images, logits)
            return logits
        edges = [len(images) * worker // self.threads for worker in range(self.threads + 1)]
        shares = [slice(*edge) for edge in pairwise(edges)]
        list(self.pool.map(lambda w: self._share(w, images[shares[w]], logits[shares[w]]), range(self.threads)))
        return logits

    def _share(self, worker: int, images: Images, logits: Logits) -> None:
        for start in range(0, len(images), TOGETHER):
            self._run(worker, images[start : start + TOGETHER], logits[start : start + TOGETHER])

    def _run(self, worker: int, images: Images, logits: Logits) -> None:
        prepared = self.prepared[worker].get(len(images))
        if prepared is None:
            prepared = self.prepared[worker][len(images)] = prepare(self.rows, len(images))
        prepared.table[self.first, Pass.INPUT] = images.ctypes.data
        prepared.table[self.last, Pass.OUTPUT] = logits.ctypes.data
        prepared.run()


def load(network: Compact, image_shape: tuple[int, int, int], threads: int = 1) -> PackedPredictor:
    """`network` compiled for images of shape (C, H, W); more than one thread share the images of a batch.

    Raises:
        InfeasibleError: it has an operation, or activations, that the kernels do not know.

    """
    rows, classes = compile_rows(network, image_shape)
    program()  # compiled or read now, not in the first call
    return PackedPredictor(place(rows), image_shape, classes, threads)
