"""The classes of failure, and which of them another try may mend."""

from collections.abc import Mapping
from typing import Literal

Failure = Literal[
    "bug", "data", "diverged", "export", "lost", "oom", "preempted", "storage", "timeout"
]  # fmt: skip
"""Why a stage failed:

- bug: an exception that nobody foresaw; its traceback is kept
- data: images are absent or damaged
- diverged: the loss is no longer a number
- export: a runtime predicts something else than the network (latency alone)
- lost: the worker died, or an output vanished
- oom: the worker came to hold more memory than the stage was given, or than there was
- preempted: the machine was asked back (SIGTERM or SIGUSR1)
- storage: the store cannot be written; ends the sweep
- timeout: the stage took longer than it was given
"""

REMEDIES: Mapping[str, str] = {
    "oom": "give it more with --set resources.memory=..., or in steps with --set retry.oom.memory=[...]",
    "timeout": "give it longer with --set resources.timeout=..., or in steps with --set retry.timeout.after=[...]",
}
"""What to ask for next, of the classes that a study can do something about."""

SETTLED: frozenset[Failure] = frozenset({"diverged"})
"""Failures that a second run of the same stage would only repeat."""

Retried = Literal["bug", "data", "diverged", "lost", "oom", "preempted", "timeout"]
"""Classes that a study may say something of."""

RETRIES: Mapping[Retried, int] = {
    "bug": 0, "data": 0, "diverged": 0, "lost": 2, "oom": 1, "preempted": 1000, "timeout": 1,
}  # fmt: skip
"""How often a stage is tried again within a sweep, where the study says nothing else."""
