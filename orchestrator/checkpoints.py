"""Checkpoints of stages that are under way or were stopped, by key, beside their outputs."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.artifacts import ArtifactStore, stored_keys
from orchestrator.durable import Stored, publish
from orchestrator.storage.places import AnyPath

if TYPE_CHECKING:
    from trainables.stages import Progress

EVERY_S = 60.0
"""A stage that is killed loses at most this and an epoch."""


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """Files of bytes under `root`, one a stage that has begun; a name is either absent or whole.

    A checkpoint is never needed: without one, or with one that `run_stage` refuses, a stage begins anew. So a folder
    that cannot be written to or read costs what it would have saved, and nothing else.
    """

    root: AnyPath

    def path(self, key: str) -> AnyPath:
        """Where the checkpoint of the stage `key` lies, or would."""
        return self.root / key

    def write(self, key: str, data: bytes) -> None:
        """Replace the checkpoint of a stage."""
        with suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
            publish(self.path(key), data)

    def read(self, key: str) -> bytes | None:
        """The checkpoint of a stage; None where there is none."""
        try:
            return self.path(key).read_bytes()
        except OSError:
            return None

    def keys(self) -> Iterator[Stored]:
        """The checkpoints that lie here, in no order.

        Raises:
            StoreError: the folder cannot be read.

        """
        return stored_keys(self.root)

    def drop(self, key: str) -> None:
        """Remove the checkpoint of a stage, and what a killed process left of one."""
        for path in (self.path(key), *self.root.glob(f".{key}.*")):
            with suppress(OSError):
                path.unlink()


def checkpoints_beside(artifacts: ArtifactStore) -> CheckpointStore:
    """The checkpoints of the stages whose outputs lie in `artifacts`."""
    return CheckpointStore(artifacts.root.with_name("checkpoints"))


class Keeper:
    """Writes the checkpoint of one stage at the ends of its epochs, at most every `EVERY_S`; stops it at its rungs.

    The stage stops at the first epoch from the lowest of `rungs` on at which it may (`Progress.may_stop`), and at any
    but the last where `asked_back` says so.
    """

    def __init__(
        self,
        store: CheckpointStore,
        key: str,
        rungs: Sequence[int] = (),
        asked_back: Callable[[], bool] = lambda: False,
    ) -> None:
        self.gave_way = False
        self._store = store
        self._key = key
        self._rung = min(rungs, default=None)
        self._asked_back = asked_back
        self._written_at = time.monotonic()

    def __call__(self, progress: "Progress") -> bool:
        """Told of an epoch; whether the stage stops here. After the last one the output follows at once."""
        last = progress.epoch >= progress.epochs
        stops = self._rung is not None and progress.epoch >= self._rung and progress.may_stop
        self.gave_way = not stops and not last and self._asked_back()
        due = not last and time.monotonic() - self._written_at >= EVERY_S
        if stops or due or self.gave_way:
            self._store.write(self._key, progress.checkpoint())
            self._written_at = time.monotonic()
        return stops or self.gave_way
