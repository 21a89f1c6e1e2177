"""How a stage that trains goes through its epochs: from where, watched by whom, and until when."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from trainables.errors import CheckpointError
from trainables.keys import Stage
from trainables.training.checkpoint import Checkpoint, Origin, load, save
from trainables.training.loop import Training
from trainables.training.randomness import global_states, set_global_states
from trainables.training.state import machine


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known of a stage at the end of one of its epochs.

    Attributes:
        epoch: how many are done, from 1.
        epochs: how many there are in all.
        record: of this epoch, as it will stand in the history: `loss`, `val_accuracy` and so on.
        may_stop: whether the record may be held against the stage. It may not while the learning rate rises, in a
            phase that the method protects (`trainables.methods.base.Method.protected`), and at the last epoch, where
            nothing is left to be saved. Stopping does no harm to the result at any epoch.
        checkpoint: gives the bytes to go on from. It is to be called while the hook runs; what is never asked for is
            never made.

    """

    epoch: int
    epochs: int
    record: Mapping[str, float]
    may_stop: bool
    checkpoint: Callable[[], bytes]


AfterEpoch = Callable[[Progress], bool]
"""Told of each epoch; True: the stage stops here."""

Watch = Callable[[Progress], Literal[False]]
"""Told of each epoch; never stops the stage."""


@dataclass(frozen=True, slots=True)
class Paused:
    """A stage that stopped at the end of an epoch: what it goes on from, and what was known of it there.

    `spent_s` are the seconds of work that it holds, over all its parts; the checkpoint remembers them.
    """

    checkpoint: bytes
    epoch: int
    epochs: int
    record: Mapping[str, float]
    spent_s: float


class Course:
    """The way of one stage through its epochs; made when the stage begins, as it counts the seconds.

    Args:
        stage: the stage.
        parent: its parent's output.
        resume: a checkpoint of the stage, or None to begin with the first epoch.
        after_epoch: told of each epoch; whatever it draws from global random states, training does not notice.

    Raises:
        CheckpointError: `resume` is damaged, or of another stage, parent, version or machine.

    """

    def __init__(
        self, stage: Stage, parent: bytes | None, resume: bytes | None = None, after_epoch: AfterEpoch | None = None
    ) -> None:
        self._began = time.perf_counter()
        self._stage = stage
        self._parent = parent
        self._after_epoch = after_epoch
        self._start = None if resume is None else load(resume, self._origin())
        self.before_s = 0.0 if self._start is None else self._start.spent_s

    def run(self, training: Training, protected: Callable[[int, int], bool] = lambda _, __: False) -> Paused | None:
        """Train from the checkpoint, where there is one, to the last epoch (None) or to where the hook stops.

        Raises:
            CheckpointError: the checkpoint does not fit the network.

        """
        self._take_up(training)
        while not training.finished:
            training.run_epoch()
            if self._after_epoch is not None:
                paused = self._ask(self._after_epoch, training, protected)
                if paused is not None:
                    return paused
        return None

    def _take_up(self, training: Training) -> None:
        start, self._start = self._start, None
        if start is None:
            return
        if start.epochs != training.settings.epochs or start.epoch != len(start.history):
            msg = f"a checkpoint after {start.epoch} of {start.epochs} epochs, with {len(start.history)} records"
            raise CheckpointError(f"{msg}; the stage has {training.settings.epochs} epochs")
        training.go_on_from(start.tensors, start.history)
        try:
            states = {
                name.removeprefix("global."): t for name, t in start.tensors.items() if name.startswith("global.")
            }
            set_global_states(states, self._stage.device)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            msg = f"a checkpoint without the random states of this stage: {error}"
            raise CheckpointError(msg) from error

    def _ask(self, after_epoch: AfterEpoch, training: Training, protected: Callable[[int, int], bool]) -> Paused | None:
        """What the hook says of the last epoch: None, or the stage as it stops here."""
        states = global_states(self._stage.device)
        made: list[bytes] = []
        epoch, epochs, record = len(training.records), training.settings.epochs, training.records[-1]
        spent_s = self.before_s + time.perf_counter() - self._began

        def checkpoint() -> bytes:
            if len(training.records) != epoch:
                msg = "the network has been trained on: a checkpoint is asked for while the hook runs"
                raise RuntimeError(msg)
            if not made:
                tensors = training.tensors() | {f"global.{name}": state for name, state in states.items()}
                made.append(save(Checkpoint(self._origin(), epoch, epochs, spent_s, training.records, tensors)))
            return made[0]

        may_stop = not (training.finished or training.rate_rises or protected(epoch - 1, epochs))
        stops = after_epoch(Progress(epoch, epochs, record, may_stop, checkpoint))
        set_global_states(states, self._stage.device)
        return Paused(checkpoint(), epoch, epochs, record, spent_s) if stops else None

    def _origin(self) -> Origin:
        return Origin(
            stage=self._stage.key,
            parent=None if self._parent is None else hashlib.sha256(self._parent).hexdigest(),
            torch=str(torch.__version__),
            machine=machine(),
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if self._stage.device == "cuda" else None,
        )
