"""What Python's memory needs to be told."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def many_objects() -> Generator[None]:
    """Make a great many objects that stay: the garbage collector would look through all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
