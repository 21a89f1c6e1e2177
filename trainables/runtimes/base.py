"""The contract of a runtime: a loaded network is a function from images to logits."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Logits = NDArray[np.float32]


class Predictor(Protocol):
    """A network loaded into a runtime, ready to run."""

    def __call__(self, images: Images) -> Logits:
        """Logits (N, classes) of normalised images (N, C, H, W), C-contiguous."""
        ...
