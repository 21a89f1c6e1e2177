"""What each study of a results root wants kept: by its plan, made again from `_study.yaml`, and by its tables."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.layout import Layout
from orchestrator.ledger import Replay
from orchestrator.locks import Holder
from orchestrator.plan import Plan
from orchestrator.planning import Site, grow_from_store, growth_of, planner_of
from orchestrator.retention.kept import kept
from orchestrator.rungs import with_stops
from orchestrator.runner.base import missing
from orchestrator.shards import locked_studies, runner_of
from orchestrator.spec.load import parse_spec

STUDY = "_study.yaml"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a study wants kept: keys of stages.

    `outputs` are to stay, `begun` are stages from whose checkpoints it may go on, `owned` all that its plan or its
    tables name. `unknown` says why its plan cannot be known: then everything stays. `runs` says who runs it.
    """

    study: str
    outputs: frozenset[str]
    begun: frozenset[str]
    owned: frozenset[str]
    unknown: str = ""
    runs: Holder | None = None


def wishes(site: Site, replayed: Replay, but: str | None = None) -> list[Wish]:
    """Those of all studies of a root, or of all `but` one."""
    layout = site.layout
    names = {path.parent.name for path in layout.root.glob(f"*/{STUDY}")}
    # One that has just begun holds its lock and has no folder yet.
    names |= {name for name in locked_studies(layout) if runner_of(layout, name) is not None}
    return [wish_of(name, site, replayed) for name in sorted(names) if name != but]


def wish_of(study: str, site: Site, replayed: Replay) -> Wish:
    """What one study wants kept."""
    layout = site.layout
    runs = runner_of(layout, study)
    named = named_in_tables(layout, study)
    try:
        plan, ended = stored_plan(study, site, replayed)
    except OrchestratorError as error:
        why = next(iter(str(error).splitlines()), "")
        detail = [line.strip() for line in str(error).splitlines()[1:2]]
        return Wish(study, named, named, named, " ".join([why, *detail]), runs)
    owned = named | plan.stages.keys()
    if runs is not None and (plan.grows or runs.digest != plan.digest):
        return Wish(study, owned, owned, owned, "it is running, and what it will need is not known", runs)
    outputs = kept(plan, layout) if ended and runs is None and plan.spec.keep != "all" else owned
    return Wish(study, frozenset(outputs), owned, owned, "", runs)


def stored_plan(study: str, site: Site, replayed: Replay) -> tuple[Plan, bool]:
    """A stored study's plan as far as it has grown, and whether nothing of it is left to run.

    Raises:
        OrchestratorError: its `_study.yaml` cannot be read, or its data or code are not at hand.

    """
    path = site.layout.study(study) / STUDY
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    spec = parse_spec(text, str(path), allow_code=site.code_folder is not None)
    planner = planner_of(spec, site, lambda _: None, may_probe=False)
    records = with_stops(replayed.records, replayed.events.get(spec.search_name, ()))
    growth = growth_of(planner, replayed, lambda _: None)
    if growth is not None and not spec.search.sampled:
        grow_from_store(growth, records, site.layout)
    plan = planner.plan
    open_still = bool(missing(plan, records, site.layout).stages) or (growth is not None and not growth.exhausted)
    return plan, not open_still


def named_in_tables(layout: Layout, study: str) -> frozenset[str]:
    """The stages that a study's tables name; none of a table that cannot be read."""
    folder = layout.study(study)
    found: set[str] = set()
    for file in ("trials.parquet", "_stages.parquet"):
        try:
            table = pq.read_table(pa.BufferReader((folder / file).read_bytes()))
        except (OSError, pa.ArrowException):
            continue
        columns = [name for name in table.column_names if name == "key" or name.startswith("stage_keys.")]
        for name in columns:
            found.update(_texts(table[name].to_pylist()))
    return frozenset(found)


def _texts(values: Iterable[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str))
