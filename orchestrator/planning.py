"""A study's planner with all that it asks of the machine, and what adds trials to its plan while it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.folders import ImagesOf
from orchestrator.layout import Layout
from orchestrator.ledger import Replay, StageRecord
from orchestrator.plan import Planner
from orchestrator.precision import Precisions
from orchestrator.sources import Sources
from orchestrator.spec.model import StudySpec
from orchestrator.storage.places import AnyPath
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from orchestrator.growth import Growth, Note


@dataclass(frozen=True, slots=True)
class Site:
    """Where a study's plan is made: the results root, the data, and where a user's own code may be imported from.

    `code_folder` None: it may not be.
    """

    layout: Layout
    data_root: AnyPath
    code_folder: Path | None = None


def planner_of(
    spec: StudySpec,
    site: Site,
    announce: Callable[[str], None],
    *,
    may_probe: bool = True,
    before_probe: Callable[[TrialConfig], None] | None = None,
) -> Planner:
    """The planner of a study; `announce` and what follows are those of `Precisions`, errors those of `Planner`."""
    precisions = Precisions(
        site.layout.probes, spec.resources.device, announce, may_probe=may_probe, before_probe=before_probe
    )
    sources = Sources(spec.source, site.code_folder) if site.code_folder else None
    return Planner(spec, precisions, sources, ImagesOf(spec.source, site.data_root))


def growth_of(planner: Planner, replayed: Replay, note: "Note") -> "Growth | None":
    """What adds trials to the plan of a study while it runs; None where all are known beforehand."""
    if planner.spec.search.sampled:
        # Optuna and pandas take a while to import.
        from orchestrator.sampling import SampledSearch

        events = replayed.events.get(planner.spec.search_name, ())
        return SampledSearch(planner, events, replayed.records, note)
    if planner.spec.search.repeats == "adaptive":
        from orchestrator.growth import AdaptiveRepeats

        return AdaptiveRepeats(planner)
    return None


def grow_from_store(growth: "Growth", records: Mapping[str, StageRecord], layout: Layout) -> None:
    """Add trials until one has something to run: a search that is finished starts no runner."""
    from orchestrator.runner.base import missing  # which loads the tables' library

    while not growth.exhausted:
        pending = {stage.key for stage in missing(growth.plan, records, layout).stages}
        if pending or not growth.grow(records, pending, room=1):
            return
