"""What a kind of cluster can do with a request."""

from typing import Protocol


class Target(Protocol):
    """One kind of cluster, told once what to send."""

    def preview(self) -> str:
        """What would be sent, as text; nothing is contacted and nothing of the target need be installed."""
        ...

    def submit(self, *, follow: bool) -> int:
        """Send it, or find the job of the same study that already runs; returns an exit code.

        With `follow` the job's output is shown to its end and the exit code is the sweep's; else 0.

        Raises:
            RunError: it cannot be sent.

        """
        ...
