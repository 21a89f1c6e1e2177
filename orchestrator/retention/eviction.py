"""The end of a study that does not keep everything."""

from orchestrator.errors import RunError
from orchestrator.ledger import Replay
from orchestrator.plan import Plan
from orchestrator.planning import Site
from orchestrator.retention.kept import kept
from orchestrator.retention.removal import Removed, alone, remove
from orchestrator.retention.rubbish import Piece
from orchestrator.retention.wishes import wishes


def evict(plan: Plan, site: Site, replayed: Replay) -> tuple[Removed, str]:
    """Remove the outputs of an ended study that neither it nor another one wants; or say why none were.

    The study's own lock is held by the caller.
    """
    layout, study = site.layout, plan.spec.study
    try:
        with alone(layout):
            others = wishes(site, replayed, but=study)
            unknown = [one for one in others if one.unknown]
            if unknown:
                why = f"the plan of {unknown[0].study} is not known ({unknown[0].unknown})"
                return Removed(), f"nothing was evicted, as {why}; `orchestrator gc` does it later"
            wanted = frozenset().union(kept(plan, layout), *(one.outputs for one in others))
            going = plan.stages.keys() - wanted
            pieces = [
                Piece("output", f".store/artifacts/{one.key}", one.bytes)
                for one in layout.artifacts.keys()
                if one.key in going
            ]
            return remove(layout, pieces), ""
    except RunError as error:
        return Removed(), f"nothing was evicted: {error}"
