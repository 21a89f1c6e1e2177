"""Early stopping with several objectives: which stages pause at a rung, and which of them go on.

A rung is a share of the epochs of the stage that trains a trial's network last. There a stage leaves a checkpoint and
its trial is compared with all of the same seed that have got as far:

- with several columns it stops where another one is at least as good in all of them, by the tolerance of each, and
  better in one: dominance by a margin, so that noise smaller than the margin stops nobody;
- with one column and `keep` it goes on among the best `keep` of those seen at the rung, itself included, once there
  are 1 / `keep` of them: the stopping variant of asynchronous successive halving (Li et al., "A System for Massively
  Parallel Hyperparameter Tuning", MLSys 2020), in which nobody who was stopped is promoted later.

A stage does not pause while its method, or a rising learning rate, makes its numbers no fair comparison; the rung is
then the first epoch after that. That a trial was stopped belongs to the study: the stage has its checkpoint, from which
another study goes on. Baselines never stop.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.ledger import Event, StageRecord, Stop
from orchestrator.plan import Plan, Trial
from orchestrator.spec.model import Rungs
from trainables.config import TrialConfig

Records = Mapping[str, StageRecord]
Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Climber:
    """A stage that may stop: what is known of it from its trial."""

    key: str
    trial: Trial
    epochs: int


class RungKeeper:
    """Keeps the scores of a study's rungs, and says who stops."""

    def __init__(self, rungs: Rungs) -> None:
        self._rungs = rungs
        self._climbers: dict[str, _Climber] = {}
        self._fellows: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        self._passed: defaultdict[str, dict[int, Mapping[str, float]]] = defaultdict(dict)

    def know(self, plan: Plan) -> None:
        """Take the trials of a plan that may be stopped: cells whose last trained stage no baseline needs."""
        needed = {key for trial in plan.trials if trial.baseline for key in trial.path}
        for trial in plan.trials:
            key, kind = trial.path[-2], trial.kinds[-2]
            if trial.baseline is None and key not in needed and key not in self._climbers:
                self._climbers[key] = _Climber(key, trial, _epochs(trial.config))
                self._fellows[kind, trial.seed].append(key)

    def epochs(self, key: str) -> tuple[int, ...]:
        """The epochs at whose ends a stage is still to pause, rising."""
        climber = self._climbers.get(key)
        if climber is None:
            return ()
        highest = max((epoch["epoch"] for epoch in self._passed[key].values()), default=0.0)
        return tuple(epoch for epoch in self._epochs_of(climber) if highest < epoch < climber.epochs)

    def reached(self, record: StageRecord, records: Records) -> str | None:
        """Why a paused stage stops here; None: it goes on."""
        climber = self._climbers[record.key]
        epoch = record.history[-1]
        rung = sum(one <= epoch["epoch"] for one in self._epochs_of(climber))
        self._passed[record.key][rung] = epoch
        own = self._values(climber, epoch)
        seen = self._seen(climber, record.kind, rung, epoch["epoch"] / climber.epochs, records)
        others = {key: values for key, values in seen if key != record.key}
        where = f"at epoch {epoch['epoch']:.0f} of {climber.epochs}"
        if self._rungs.keep is not None:
            return self._outranked(own, list(others.values()), where)
        for key, values in others.items():
            if self._beats(values, own):
                trial = self._climbers[key].trial
                return f"{where}, trial {trial.id} was better in {self._told(values, own)}"
        return None

    def _outranked(self, own: Values, others: Sequence[Values], where: str) -> str | None:
        keep = self._rungs.keep or 1.0
        better, seen = sum(values < own for values in others), len(others) + 1
        if seen * keep < 1 or better < math.ceil(seen * keep):
            return None
        return f"{where}, {better} of {seen} trials were better in {self._rungs.on[0].column}"

    def _epochs_of(self, climber: _Climber) -> list[int]:
        """The epochs of the rungs, rising; two shares of a short stage may be one epoch."""
        return sorted({math.ceil(share * climber.epochs - 1e-9) for share in self._rungs.at})

    def _seen(
        self, climber: _Climber, kind: str, rung: int, share: float, records: Records
    ) -> list[tuple[str, Values]]:
        """What trials of the same seed had there: complete ones at this share of their epochs, others at this rung.

        A stage that was taken up again behind its rung is compared where it pauses next, an epoch later.
        """
        found: list[tuple[str, Values]] = []
        for key in self._fellows[kind, climber.trial.seed]:
            fellow = self._climbers[key]
            record = records.get(key)
            at = math.ceil(share * fellow.epochs - 1e-9)
            if record is not None and record.status == "complete" and len(record.history) >= at:
                found.append((key, self._values(fellow, record.history[at - 1])))
            elif (epoch := self._passed[key].get(rung)) is not None:
                found.append((key, self._values(fellow, epoch)))
        return found

    def _values(self, climber: _Climber, epoch: Mapping[str, float]) -> Values:
        """The columns, all to be made small."""
        found: list[float] = []
        for one in self._rungs.on:
            value = epoch[one.column] if one.column in epoch else _leaf(climber.trial.config, one.column)
            found.append(one.sign * value)
        return tuple(found)

    def _beats(self, theirs: Values, own: Values) -> bool:
        margins = [
            one.tolerance * (abs(mine) if one.relative else 1.0) for one, mine in zip(self._rungs.on, own, strict=True)
        ]
        within = all(a <= b - margin for a, b, margin in zip(theirs, own, margins, strict=True))
        return within and any(a < b for a, b in zip(theirs, own, strict=True))

    def _told(self, theirs: Values, own: Values) -> str:
        compared = list(zip(self._rungs.on, theirs, own, strict=True))
        parts = [f"{one.column} ({one.sign * a:.4g} against {one.sign * b:.4g})" for one, a, b in compared if a < b]
        equal = [one.column for one, a, b in compared if a == b]
        return ", ".join(parts) + (f", and no worse in {', '.join(equal)}" if equal else "")


def stopped(record: StageRecord, reason: str) -> StageRecord:
    """The record of a paused stage as its study has it from now on."""
    return msgspec.structs.replace(record, status="stopped", error=reason, metrics={})


def with_stops(records: Records, events: Sequence[Event]) -> dict[str, StageRecord]:
    """The records as a study sees them: what it stopped stays stopped, unless the stage was completed elsewhere."""
    found = dict(records)
    for event in events:
        if isinstance(event, Stop):
            record = StageRecord(**event.record)
            known = found.get(record.key)
            if known is None or known.status != "complete":
                found[record.key] = record
    return found


def _epochs(config: TrialConfig) -> int:
    return config.compress.epochs if config.compress else config.train.epochs


def _leaf(config: TrialConfig, path: str) -> float:
    """A config leaf as a number; one that a trial does not have counts as 0."""
    section, _, name = path.partition(".")
    value: float | None = getattr(getattr(config, section), name, None)
    return 0.0 if value is None else float(value)
