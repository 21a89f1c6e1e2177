"""A search as an Optuna journal: what optuna-dashboard opens, with the study's own names and values."""

import tempfile
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.errors import RunError
from orchestrator.search.sampler import Parameter, Sampler
from orchestrator.spec.guide import guiding
from orchestrator.spec.model import Distribution, StudySpec
from orchestrator.spec.yaml_nodes import Value

_BEGINNING = b'{"op_code"'


def check_journal(path: Path) -> None:
    """Refuse to replace a file that is no journal, or to run a search whose journal could not be written.

    Raises:
        RunError: the file is of another kind, or its folder does not exist or cannot be written.

    """
    if not path.parent.is_dir():
        raise RunError(f"--optuna-journal {path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or (path.exists() and path.read_bytes()[: len(_BEGINNING)] not in (b"", _BEGINNING)):
        raise RunError(f"--optuna-journal {path}: is there and is no Optuna journal; name another file")
    with _beside(path):
        pass


def export_journal(sampler: Sampler, spec: StudySpec, path: Path) -> None:
    """Write all asks of a search, replacing an earlier journal.

    Objectives have their own directions again, and listed values stand as they do in the study file.

    Raises:
        RunError: the file cannot be written.

    """
    with _beside(path) as folder:
        part = folder / "journal"
        _write(sampler, spec, part)
        part.replace(path)


@contextmanager
def _beside(path: Path) -> Generator[Path]:
    """A folder of its own beside the journal."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".journal-") as folder:
            yield Path(folder)
    except OSError as error:
        raise RunError(f"--optuna-journal {path}: cannot be written: {error.strerror}") from error


def _write(sampler: Sampler, spec: StudySpec, path: Path) -> None:
    objectives = tuple(map(guiding, spec.objectives))
    signs = [one.sign for one in objectives]
    directions = [StudyDirection.MAXIMIZE if sign < 0 else StudyDirection.MINIMIZE for sign in signs]
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))), study_name=spec.study, directions=directions
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([one.column for one in objectives])
    study.set_user_attr("question", spec.question)
    study.add_trials([_trial(one, sampler, signs) for one in sampler.trials])


def _trial(trial: FrozenTrial, sampler: Sampler, signs: list[float]) -> FrozenTrial:
    """The same trial in the study's words; one that runs still is told as failed, since nothing follows it here."""
    params, distributions = _named(trial.params, sampler)
    complete = trial.state == TrialState.COMPLETE
    # 0.0 is added so that no loss of 0 comes out as -0.0
    values = [sign * value + 0.0 for sign, value in zip(signs, trial.values, strict=True)] if complete else None
    found = create_trial(
        state=TrialState.COMPLETE if complete else TrialState.FAIL,
        params=params,
        distributions=distributions,
        values=values,
    )
    for bound, violation in trial.constraints.items():
        found.set_constraint(bound, violation)
    return found


def _named(params: Mapping[str, Any], sampler: Sampler) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    found: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for parameter in sampler.parameters:
        if parameter.name in params:
            found[parameter.name] = _value(parameter, params[parameter.name], sampler)
            distributions[parameter.name] = _distribution(parameter, sampler)
    return found, distributions


def _value(parameter: Parameter, given: Any, sampler: Sampler) -> Any:
    """What the study has in place of the sampler's number or word; zipped axes stay a word for all of them."""
    place = parameter.places[0]
    values = sampler.space.axes[place].values
    if isinstance(values, Distribution):
        return values.rounded(given)
    return given if len(parameter.places) > 1 else _listed(values[parameter.decode(given)], given)


def _listed(value: Value, word: Any) -> Any:
    """A value of a list, as far as Optuna can hold it."""
    return word if isinstance(value, tuple | Mapping) else value


def _distribution(parameter: Parameter, sampler: Sampler) -> BaseDistribution:
    """Ranks and words of listed values become those values."""
    if isinstance(parameter.distribution, CategoricalDistribution):
        given = parameter.distribution.choices
    elif parameter.order:
        given = range(len(parameter.order))
    else:
        return parameter.distribution
    return CategoricalDistribution([_value(parameter, one, sampler) for one in given])
