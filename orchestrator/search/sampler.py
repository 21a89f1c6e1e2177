"""Optuna's samplers over the axes of a study, one ask and one tell at a time.

Ask number n depends on the search's seed, on n, and on what was asked and told before: the sampler is made anew with
a seed of its own for every ask, so that a search that is taken up again goes on as if it had never stopped.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.spec.model import Axis, Distribution, SearchSpec
from orchestrator.spec.space import FIXED, Space, State
from orchestrator.spec.yaml_nodes import Value

POPULATION = 20
"""Parents of NSGA-II and NSGA-III: Optuna's 50 would leave most of a small search to chance."""

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A point of the space: `params` are the sampler's names and numbers, `state` indexes the values of the axes."""

    number: int
    params: Params
    state: State


@dataclass(frozen=True, slots=True)
class Parameter:
    """What the sampler sees of a free axis or of a zipped group: axes at these places move together.

    Numbers of a list become their rank, so that neighbours are near; anything else is a category.
    """

    name: str
    places: tuple[int, ...]
    distribution: BaseDistribution
    order: tuple[int, ...] = ()

    def encode(self, index: int) -> Any:
        """The sampler's number or word for a value of the axis, by its index in the list."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices[index]
        return self.order.index(index)

    def suggested(self, trial: optuna.Trial) -> Any:
        """The sampler's choice."""
        match self.distribution:
            case IntDistribution(low=low, high=high):
                return trial.suggest_int(self.name, low, high)
            case FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(self.name, low, high, log=log)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)
            case _:
                raise TypeError(self.distribution)

    def decode(self, given: Any) -> int:
        """The other way round."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices.index(given)
        return self.order[int(given)]


class Sampler:
    """Asks for points of a space and is told their losses, all to be made small."""

    def __init__(self, space: Space, search: SearchSpec, objectives: int) -> None:
        self.space = space
        self.parameters = parameters(space)
        self._search = search
        self._study = _study(objectives)
        self._open: dict[int, optuna.Trial] = {}

    @property
    def asked(self) -> int:
        """How many points were asked for, among them those told as failed."""
        return len(self._study.get_trials(deepcopy=False))

    @property
    def trials(self) -> list[FrozenTrial]:
        """All asks in Optuna's form."""
        return self._study.get_trials(deepcopy=False)

    def ask(self, params: Params | None = None) -> Asked:
        """The next point: the sampler's own, or the one that `params` name."""
        number = self.asked
        self._study.sampler = make_sampler(self._search, number)
        if params is not None:
            self._study.enqueue_trial(dict(params))
        trial = self._study.ask()
        state = self._suggest(trial)
        self._open[number] = trial
        return Asked(number, dict(trial.params), state)

    def tell(self, number: int, losses: Sequence[float] | None, violations: Sequence[float] = ()) -> None:
        """What a point was worth; None: it failed, and nothing is known of it but that.

        `violations` say, for each bound of `where`, by how much it is missed; at most 0 where it is kept.
        """
        trial = self._open.pop(number)
        for bound, violation in zip(self._search.where, violations, strict=True):
            trial.set_constraint(str(bound), violation)
        if losses is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, list(losses))

    def params_of(self, state: State) -> Params | None:
        """The sampler's names and numbers for a state; None where a value of a distribution lies outside."""
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            index = state[parameter.places[0]]
            if index == FIXED:
                continue
            axis = self.space.axes[parameter.places[0]]
            if not isinstance(axis.values, Distribution):
                found[parameter.name] = parameter.encode(index)
                continue
            value = cast("float", self.space.values[parameter.places[0]][index])
            if not axis.values.low <= value <= axis.values.high:
                return None
            found[parameter.name] = value
        return found

    def _suggest(self, trial: optuna.Trial) -> State:
        """Values axis by axis; one whose `when` is false is never asked for."""
        state = [FIXED] * len(self.space.axes) + [0]
        for parameter in self.parameters:
            if len(parameter.places) == 1 and not self.space.varied(parameter.places[0], tuple(state)):
                continue
            given = parameter.suggested(trial)
            for place in parameter.places:
                state[place] = self._index(parameter, place, given)
        return self.space.settle(tuple(state))

    def _index(self, parameter: Parameter, place: int, given: Any) -> int:
        values = self.space.axes[place].values
        if not isinstance(values, Distribution):
            return parameter.decode(given)
        return self.space.place_of(place, values.rounded(given))


def make_sampler(search: SearchSpec, number: int) -> BaseSampler:
    """A fresh sampler of Optuna's for the ask `number`.

    Sources: TPE Bergstra et al., NeurIPS 2011, multivariate as in BOHB (Falkner et al., ICML 2018); NSGA-II Deb et al.,
    2002; NSGA-III Deb and Jain, 2014; Sobol sequences, scrambled once a search.
    """
    seed = _seed(search.seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match search.name:
            case "tpe":
                return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=POPULATION)
            case "nsga3":
                return NSGAIIISampler(seed=seed, population_size=POPULATION)
            case "qmc":
                return QMCSampler(
                    seed=search.seed, scramble=True, independent_sampler=RandomSampler(seed),
                    warn_asynchronous_seeding=False, warn_independent_sampling=False,
                )  # fmt: skip
            case "random" | "grid":
                return RandomSampler(seed)


def parameters(space: Space) -> tuple[Parameter, ...]:
    """The parameters of a space, each after those that its `when` reads."""
    free = [_parameter(axis.path, (place,), axis) for place, axis in enumerate(space.spec.axes)]
    free.sort(key=lambda parameter: space.depth(parameter.places[0]))
    groups: list[Parameter] = []
    first = len(space.spec.axes)
    for group in space.spec.zips:
        places = tuple(range(first, first + len(group)))
        words = [" ".join(map(_word, values)) for values in zip(*(space.values[i] for i in places), strict=True)]
        name = " + ".join(axis.path for axis in group)
        groups.append(Parameter(name, places, CategoricalDistribution(words)))
        first += len(group)
    return (*groups, *free)


def _parameter(name: str, places: tuple[int, ...], axis: Axis) -> Parameter:
    values = axis.values
    if isinstance(values, Distribution):
        return Parameter(name, places, _distribution(values))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or len(values) < 3:
        return Parameter(name, places, CategoricalDistribution([_word(value) for value in values]))
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return Parameter(name, places, IntDistribution(0, len(order) - 1), tuple(order))


def _distribution(values: Distribution) -> BaseDistribution:
    if values.kind == "int_uniform":
        return IntDistribution(int(values.low), int(values.high))
    return FloatDistribution(values.low, values.high, log=values.kind == "loguniform")


def _word(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _study(objectives: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=[StudyDirection.MINIMIZE] * objectives)


def _seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"ask:{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
