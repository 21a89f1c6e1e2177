"""What Python's memory needs to be told."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

MANY = 100_000
"""What a study of some thousand cells leaves; to look through it takes a tenth of a second."""


@contextmanager
def many_objects() -> Generator[None]:
    """Make a great many objects that stay: the garbage collector would look through all of them again and again.

    Where there were really many it leaves them alone for good.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:
            gc.freeze()
        if enabled:
            gc.enable()
