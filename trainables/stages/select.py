"""Stage `select`: one round of labelling; a trajectory is a chain of them."""

from collections.abc import Mapping

from torch import Tensor

from trainables.active import trajectory
from trainables.active.rounds import Round, advance, start
from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset
from trainables.stages.base import Outcome


def select(config: TrialConfig, seed: int, data: Dataset, device: Device, parent: bytes | None) -> Outcome:
    """The initial draw, or where there is a `parent` the round after it.

    Its numbers are those of the trajectory so far: what the rounds have cost, in busy seconds. The record of the round
    itself stands in the history.

    Raises:
        DivergedError: training diverged, or the network gives scores that are no numbers.
        InfeasibleError: there are too few images to ask for, or the strategy needs what the network has not.

    """
    if parent is None:
        found = Round(start(config, seed, data), len(data.train), None)
    else:
        found = advance(config, seed, data, device, trajectory.load(parent))
    return Outcome(trajectory.save(found.after), _spent(found.after), [_record(found)])


def labelled(parent: bytes, budget: int) -> Tensor:
    """The first `budget` labelled images of a stored trajectory, int64; fewer where asking ended before."""
    return trajectory.load(parent).labelled[:budget]


def _spent(after: trajectory.Trajectory) -> Mapping[str, float]:
    parts = {name: sum(getattr(cost, name) for cost in after.costs) for name in ("train_s", "score_s", "query_s")}
    return {"select_s": sum(parts.values())} | {f"select_{name}": seconds for name, seconds in parts.items()}


def _record(found: Round) -> Mapping[str, float]:
    after, cost = found.after, found.after.costs[-1]
    known = {} if found.val_accuracy is None else {"val_accuracy": found.val_accuracy}
    return {
        "round": len(after.sizes) - 1,
        "labels": len(after.labelled),
        "candidates": found.candidates,
        **known,
        "round_train_s": cost.train_s,
        "round_score_s": cost.score_s,
        "round_query_s": cost.query_s,
    }
