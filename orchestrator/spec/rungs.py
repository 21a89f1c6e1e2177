"""The section `search.rungs` of a study file: where, and by what, trials are stopped early."""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from orchestrator.analysis.objectives import Objective, parse_objectives
from orchestrator.analysis.tables import HISTORY_COLUMNS, is_config_column
from orchestrator.errors import Fault, TableError
from orchestrator.spec.leaves import uncompared
from orchestrator.spec.model import Rungs
from orchestrator.spec.wording import meant, show
from orchestrator.spec.yaml_nodes import Node, Value
from trainables.config import TrialConfig
from trainables.method_config.pruning import PruneFields
from trainables.pruning.ramp import Ramp

ADVICE = "as in rungs: {on: {val_accuracy: {max: 0.02}, compress.pfr: max}, at: [0.5, 0.75]}"
_EPOCH_COLUMNS = tuple(name for name, column in HISTORY_COLUMNS.items() if column.direction and column.deterministic)


def rungs(node: Node | None, faults: list[Fault]) -> Rungs | None:
    """Columns of the history and config leaves with directions and margins, and shares of the epochs."""
    if node is None or node.value is None:
        return None
    entries = node.only("search.rungs", ("on", "at", "keep"), faults)
    absent = [key for key in ("on", "at") if key not in entries]
    faults.extend(node.fault(f"search.rungs.{key}", f"is required, {ADVICE}") for key in absent)
    on = _on(entries.get("on"), faults)
    at = _shares(entries.get("at"), faults)
    keep = entries.get("keep")
    share = keep.plain() if keep else None
    if keep and not _share(share):
        faults.append(keep.fault("search.rungs.keep", f"{show(share)} must be a share between 0 and 1, as 0.33"))
    if keep and len(on) > 1:
        message = "ranks by one column; with several a trial stops where another is better in all of them"
        faults.append(keep.key_fault("search.rungs.keep", message))
    return Rungs(on, at, float(share) if _share(share) and isinstance(share, int | float) else None)


def _on(node: Node | None, faults: list[Fault]) -> tuple[Objective, ...]:
    if node is None:
        return ()
    found: list[Objective] = []
    for column, item in node.mapping("search.rungs.on", faults).items():
        place = f"search.rungs.on.{column}"
        if message := _unknown(column):
            faults.append(item.key_fault(place, message))
            continue
        try:
            found += parse_objectives({column: item.plain()}, also=_EPOCH_COLUMNS)
        except TableError as error:
            faults.append(item.key_fault(place, str(error).removeprefix(f"objective {column}: ")))
    if not any(one.column in _EPOCH_COLUMNS for one in found) and isinstance(node.value, Mapping) and found:
        faults.append(node.fault("search.rungs.on", f"names nothing that an epoch shows: {', '.join(_EPOCH_COLUMNS)}"))
    return tuple(found)


def _unknown(column: str) -> str:
    """Why a rung cannot look at a column; empty where it can."""
    if column in _EPOCH_COLUMNS:
        return ""
    if is_config_column(column):
        return uncompared(column)
    return f"is not known at an epoch's end{meant(column, _EPOCH_COLUMNS)}, or a config leaf"


def _shares(node: Node | None, faults: list[Fault]) -> tuple[float, ...]:
    if node is None:
        return ()
    value = node.plain()
    found = [float(one) for one in value if _share(one)] if isinstance(value, tuple) else []  # pyright: ignore[reportArgumentType]
    rising = all(a < b for a, b in pairwise(found))
    if not isinstance(value, tuple) or len(found) != len(value) or not found or not rising:
        message = f"{show(value)} must be rising shares of the epochs between 0 and 1, as [0.5, 0.75]"
        faults.append(node.fault("search.rungs.at", message))
    return tuple(found)


def hopeless(rungs: Rungs, configs: Iterable[TrialConfig]) -> str:
    """Why no trial of these can stop at a rung; empty where one can."""
    epochs = 0
    for config in configs:
        epochs = config.compress.epochs if config.compress else config.train.epochs
        if any(_pauses(config, epoch, epochs) for epoch in range(_first(rungs, epochs), epochs)):
            return ""
    return (
        f"no trial can stop: the first rung lies after epoch {_first(rungs, epochs)} of {epochs}, and none of those "
        "before the last one is past what a method protects, such as the ramp of the PFR; take more epochs, lower "
        "shares, or another ramp_share and freeze_share"
    )


def _first(rungs: Rungs, epochs: int) -> int:
    return math.ceil(rungs.at[0] * epochs - 1e-9)


def _pauses(config: TrialConfig, epoch: int, epochs: int) -> bool:
    """Whether the masks, where there are any, have settled after so many epochs."""
    found = config.compress
    if not isinstance(found, PruneFields) or "ramp_share" in found.inert():
        return True
    return Ramp(found.ramp_share, found.freeze_share).settled(epoch - 1, epochs)


def _share(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
