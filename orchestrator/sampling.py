"""A search that learns: Optuna asks, the forest answers, and the ledger keeps each question and answer.

Baselines are planned at the end, for the configs on the front of what was told: a search over a leaf of the training
would otherwise train two further networks for every config that it looks at.

A search is named by what it asks over, not by how long it goes on: with more `trials` it continues, and after a kill it
replays its own events into a new Optuna study. Trials that the store holds when a search begins, of whatever study, are
told to it where they lie in its space.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from orchestrator.analysis.dominance import nondominated
from orchestrator.growth import Note, Records, Row, Rows
from orchestrator.ledger import Ask, Event, Stop, Tell
from orchestrator.plan import Plan, Planner, Trial
from orchestrator.search.sampler import Asked, Sampler
from orchestrator.spec.cells import Cell, draws, first_states, listed
from orchestrator.spec.guide import guiding, losses
from orchestrator.spec.space import FIXED, Space, State
from orchestrator.spec.yaml_nodes import Value
from orchestrator.warm import fitting
from trainables.config import TrialConfig

MAX_REPEATED = 100
"""Points in a row that are excluded or known before chance takes over from the sampler."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A config that runs under all seeds."""

    number: int
    config: TrialConfig
    trials: tuple[Trial, ...]


class SampledSearch:
    """Adds the configs that a sampler asks for to a plan."""

    def __init__(self, planner: Planner, events: Sequence[Event], records: Records, note: Note) -> None:
        self._planner = planner
        self._search = planner.spec.search
        self._name = planner.spec.search_name
        self._note = note
        self._rows = Rows(planner)
        self._objectives = tuple(map(guiding, planner.spec.objectives))
        self._space = Space(planner.spec, listed(planner.spec))
        self.sampler = Sampler(self._space, self._search, len(self._objectives))
        self._open: dict[int, _Open] = {}
        self._told: dict[int, Tell] = {}
        self._number_of: dict[int, int] = {}
        self._from_store: dict[int, int] = {}
        self._kept = 0
        self._repeated = 0
        self._firsts = first_states(planner.spec, self._space)
        self._chance = draws(planner.spec, self._space)
        self._ended = False
        self._compared = False
        self._trials: dict[int, tuple[Trial, ...]] = {}
        if events:
            self._replay(events)
        else:
            self._tell_store(records)

    @property
    def plan(self) -> Plan:
        """All trials so far."""
        return self._planner.plan

    @property
    def exhausted(self) -> bool:
        """Whether all was asked for and told, and the front has its baselines."""
        return self._compared and not self._open

    def grow(self, records: Records, pending: Set[str], room: int) -> bool:
        """Tell the sampler what has finished, and ask as long as fewer than `room` configs are open."""
        self._tell_finished(records, pending)
        before = self._kept
        while not self._ended and self._kept < (self._search.trials or 0) and len(self._open) < room:
            self._ask_one()
        if self._kept > before or self._open:
            return self._kept > before
        # Every config with baselines of its own would cost several times what was asked for.
        self._compared = True
        return self._planner.compare(trial for number in self._front(self._trials) for trial in self._trials[number])

    @property
    def warm(self) -> tuple[int, int]:
        """How many configs of other studies the sampler was told, and how many no other dominates, of all told."""
        others = set(self._from_store.values())
        return len(others), len(others.intersection(self._front({*self._trials, *others})))

    def _front(self, numbers: Iterable[int]) -> list[int]:
        """Of these configs those that no other dominates in what the sampler was told, and that keep all bounds."""
        known = {number: tell for number in numbers if (tell := self._told.get(number)) and tell.losses}
        kept = [n for n, tell in known.items() if all(violation <= 0 for violation in tell.violations)]
        if not kept:
            return []
        mask = nondominated(np.array([known[number].losses for number in kept], dtype=np.float64))
        return [number for number, member in zip(kept, mask, strict=True) if member]

    def _ask_one(self) -> None:
        """One point more; what is excluded, impossible or known is told at once and does not count."""
        params, source = self._idea()
        if self._ended:
            return
        asked = self.sampler.ask(params)
        self._note([Ask(self._name, asked.number, asked.params, source)])
        if (answer := self._take(asked)) is not None:
            self._tell(answer)
            self._repeated += source == "sampler"

    def _idea(self) -> tuple[Mapping[str, object] | None, Literal["sampler", "first", "chance"]]:
        for state in self._firsts:
            params = self.sampler.params_of(state)
            if params is not None and not self._known(state):
                return params, "first"
        if self._repeated < MAX_REPEATED:
            return None, "sampler"
        for drawn in self._chance:
            state = self._space.settle((*drawn, 0))
            if not self._known(state):
                return self.sampler.params_of(state), "chance"
        self._ended = True
        return None, "chance"

    def _take(self, asked: Asked) -> Tell | None:
        """Open the config of a point under all its seeds; its answer, where that is known without running it."""
        config = self._config(asked.state)
        seeds = self._seeds(asked.state)
        if config is None or not seeds:
            return Tell(self._name, asked.number, None, self._nothing())
        first = self._number_of.setdefault(id(config), asked.number)
        if first != asked.number:
            known = self._told.get(first)
            same = (known.losses, known.violations) if known else (None, self._nothing())
            return Tell(self._name, asked.number, *same)
        cells = [Cell(config, self._values(asked.state), seed) for seed in seeds]
        trials = self._trials[asked.number] = self._planner.add(cells, compared=False)
        self._open[asked.number] = _Open(asked.number, config, trials)
        self._kept += 1
        self._repeated = 0
        return None

    def _tell_finished(self, records: Records, pending: Set[str]) -> None:
        for one in list(self._open.values()):
            rows = [self._rows.of(trial, records, pending) for trial in one.trials]
            if all(row is not None for row in rows):
                del self._open[one.number]
                self._tell(self._answer(one.number, [row for row in rows if row is not None]))

    def _answer(self, number: int, rows: Sequence[Row]) -> Tell:
        """Means over the seeds; a config that failed under one of them, or lacks a value, failed."""
        found = [self._values_of(row) for row in rows if row["status"] == "complete"]
        whole = [one for one in found if one is not None]
        if len(whole) < len(rows):
            return Tell(self._name, number, None, self._nothing())
        means = [fmean(values) for values in zip(*whole, strict=True)]
        bounded = zip(self._search.where, means[len(self._objectives) :], strict=True)
        missed = [bound.violation(value) for bound, value in bounded]
        return Tell(self._name, number, means[: len(self._objectives)], missed)

    def _values_of(self, row: Row) -> list[float] | None:
        """The losses of a trial, then the columns that are bounded; None where one is missing."""
        found = losses(row, self._objectives)
        bounded = [row.get(bound.column) for bound in self._search.where]
        known = [float(value) for value in bounded if isinstance(value, int | float)]
        return [*found, *known] if found is not None and len(known) == len(bounded) else None

    def _tell(self, answer: Tell) -> None:
        self._note([answer])
        self._hear(answer)

    def _hear(self, answer: Tell) -> None:
        self._told[answer.number] = answer
        self._open.pop(answer.number, None)
        self.sampler.tell(answer.number, answer.losses, answer.violations)

    def _nothing(self) -> tuple[float, ...]:
        """Violations of a point of which nothing is known."""
        return (1.0,) * len(self._search.where)

    def _replay(self, events: Sequence[Event]) -> None:
        """Ask and tell again what an earlier run asked and was told."""
        unsaid: dict[int, Tell] = {}
        for event in events:
            if isinstance(event, Stop):
                continue
            if isinstance(event, Tell):
                unsaid.pop(event.number, None)
                self._hear(event)
                continue
            asked = self.sampler.ask(event.params)
            if event.source == "store":
                self._from_store[id(self._config(asked.state))] = asked.number
            elif (answer := self._take(asked)) is not None:
                unsaid[asked.number] = answer
                self._repeated += event.source == "sampler"
        for answer in unsaid.values():
            self._tell(answer)

    def _tell_store(self, records: Records) -> None:
        """What the store knows of the space; all of it is noted at once, so that no kill leaves a part."""
        found: list[Event] = []
        for config, state, rows in fitting(self._space, self._planner, self._rows, records):
            params = self.sampler.params_of(state)
            if id(config) in self._number_of or id(config) in self._from_store or params is None:
                continue
            asked = self.sampler.ask(params)
            self._from_store[id(config)] = asked.number
            answer = self._answer(asked.number, rows)
            found += [Ask(self._name, asked.number, asked.params, "store"), answer]
            self._hear(answer)
        self._note(found)

    def _known(self, state: State) -> bool:
        """Whether a point was asked for, or cannot be run."""
        config = self._config(state)
        return config is None or id(config) in self._number_of or not self._seeds(state)

    def _config(self, state: State) -> TrialConfig | None:
        return self._space.config(state, TrialConfig.model_fields)

    def _seeds(self, state: State) -> list[int]:
        """The seeds under which no expression excludes a point."""
        seeds = self._planner.spec.seeds
        places = range(len(seeds))
        return [seeds[place] for place in places if self._space.excluded_by((*state[:-1], place)) == FIXED]

    def _values(self, state: State) -> tuple[tuple[str, Value], ...]:
        axes, values = self._space.axes, self._space.values
        return tuple((axis.path, values[i][state[i]]) for i, axis in enumerate(axes) if state[i] != FIXED)
