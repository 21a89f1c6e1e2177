"""Signals that end a run early, and in order."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Drainable(Protocol):
    """What ends early on a signal."""

    draining: bool

    def drain(self, *, urgent: bool = False) -> None:
        """Finish what runs and begin nothing more; where it is `urgent` stop at the next moment that loses nothing."""
        ...


@contextmanager
def draining_on_signals(driver: Drainable) -> Generator[None]:
    """Ctrl-C drains, and a second one stops at once (KeyboardInterrupt).

    SIGTERM and SIGUSR1 say that the machine is asked back: what runs stops where it can go on later. Off the
    main thread, where Python knows no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def drain(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and driver.draining:
            raise KeyboardInterrupt
        driver.drain(urgent=number != signal.SIGINT)

    before = {number: signal.signal(number, drain) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
