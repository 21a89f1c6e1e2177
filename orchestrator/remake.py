"""Outputs that were not kept, computed again where somebody wants one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from orchestrator.data_root import bring, local_root
from orchestrator.errors import DeployError, OrchestratorError
from orchestrator.ledger import Replay, StageRecord
from orchestrator.planning import Site
from orchestrator.trials import Row
from trainables.errors import TrialError
from trainables.keys import Stage
from trainables.sources import importable

Records = Mapping[str, StageRecord]


def remade(row: Row, site: Site, replayed: Replay, tell: Callable[[str], None]) -> bytes:
    """The packed file of a trial, made again from the last of its outputs that is still there, and kept.

    Every output on the way has the bits that the ledger remembers, so that the trial's row stays true.

    Raises:
        DeployError: it cannot be made again here, or would be another network.

    """
    trial = f"trial {row['trial_id']} of {row['study']}"
    path, parent = _from_the_last_kept(_path(trial, row, site, replayed), replayed.records, site)
    seconds = sum(replayed.records[stage.key].busy_s for stage in path)
    noun = "stage" if len(path) == 1 else "stages"
    tell(f"{trial}: its packed file was not kept; {len(path)} {noun} of {seconds:.3g} s are computed again")
    with importable(site.code_folder):
        for stage in path:
            parent = _run(trial, stage, parent, replayed.records[stage.key], site)
    if parent is None:
        raise AssertionError
    return parent


def _path(trial: str, row: Row, site: Site, replayed: Replay) -> Sequence[Stage]:
    """The trial's stages, by the plan of its study."""
    from orchestrator.retention.wishes import stored_plan

    try:
        plan, _ = stored_plan(row["study"], site, replayed)
    except OrchestratorError as error:
        raise DeployError(f"{trial}: its packed file is gone, and its study cannot be planned: {error}") from error
    found = next((one.path for one in plan.trials if one.id == row["trial_id"]), ())
    keys = [key for key in found if key in replayed.records]
    if not found or len(keys) < len(found):
        raise DeployError(
            f"{trial}: its packed file is gone, and its study as it stands, or the ledger, no longer has this trial; "
            "sweep the study again"
        )
    return [plan.stages[key] for key in found]


def _from_the_last_kept(path: Sequence[Stage], records: Records, site: Site) -> tuple[Sequence[Stage], bytes | None]:
    """The stages behind the last output that is there as it was written, and that output."""
    for place in range(len(path) - 1, -1, -1):
        key = path[place].key
        data = site.layout.artifacts.read(key, records[key].artifact_sha256)
        if data is not None:
            return path[place + 1 :], data
    return path, None


def _run(trial: str, stage: Stage, parent: bytes | None, record: StageRecord, site: Site) -> bytes:
    """The output of a stage, computed as it was; it is kept where it has the same bits."""
    from trainables.data.load import load
    from trainables.stages import run_stage
    from trainables.training.state import machine, reset_state

    reset_state(record.threads)
    data = stage.config.data
    try:
        bring(site.data_root, data)
        output = run_stage(stage, load(data, stage.seed, local_root(site.data_root)), parent).artifact
    except TrialError as error:
        raise DeployError(f"{trial}: stage {stage.kind} cannot be computed again: {error}") from error
    if hashlib.sha256(output).hexdigest() != record.artifact_sha256:
        raise DeployError(
            f"{trial}: stage {stage.kind}, computed again, has other bits than the network that its row was measured "
            f"on, by {record.machine} with torch {record.versions.get('torch', '?')} on {record.device}; this is "
            f"{machine()}. Export it on such a machine."
        )
    site.layout.artifacts.write(stage.key, output)
    return output
