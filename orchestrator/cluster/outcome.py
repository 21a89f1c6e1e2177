"""How a job ended, as the exit code of the sweep that it was."""

from collections.abc import Callable

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
