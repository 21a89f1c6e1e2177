"""How a job ended, as the exit code of the sweep that it was."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

Say = Callable[[str], None]
"""Takes a line for a person; it goes to stderr, as the job's own output has stdout."""

AGAIN = "The same command goes on from there."
DETACHED = 130
RESUMABLE = 3
SWEEP_CODES = (0, 1, 2, RESUMABLE)


def sweep_code(code: int | None, say: Say) -> int:
    """The exit code of a job: the sweep's own, or 3 where something ended it from outside."""
    if code in SWEEP_CODES:
        return code
    how = "without an exit code" if code is None else f"with exit code {code}"
    say(f"the job ended {how}, which is none of a sweep's; what was finished is kept. {AGAIN}")
    return RESUMABLE


@dataclass
class Left:
    """The exit code of whoever no longer follows."""

    code: int = 0


@contextmanager
def leaving(job: str, stop: str, say: Say) -> Generator[Left]:
    """From here on Ctrl-C leaves the job alone and says how it is stopped."""
    left = Left()
    try:
        yield left
    except KeyboardInterrupt:
        say(f"\nno longer followed; job {job} goes on. The same command follows it again. To stop it:")
        say(stop)
        left.code = DETACHED
