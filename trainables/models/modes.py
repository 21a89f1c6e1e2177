"""Running a network for what it shows, and leaving it as it was."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(model: nn.Module) -> Generator[nn.Module]:
    """`model` in eval mode; afterwards each of its modules is in the mode that it was in."""
    training = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, was in training.items():
            module.training = was
