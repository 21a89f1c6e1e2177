"""Stage `select`: one round of labelling; a trajectory is a chain of them."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from trainables.active import trajectory
from trainables.active.rounds import Round, RoundCost, advance, start
from trainables.config import Device, TrialConfig
from trainables.data.load import Dataset
from trainables.models.foreign import refuse_images
from trainables.stages.base import Outcome


def select(config: TrialConfig, seed: int, data: Dataset, device: Device, parent: bytes | None) -> Outcome:
    """The initial draw, or where there is a `parent` the round after it.

    Its numbers are what the round has cost, in busy seconds; they stand in the history too.

    Raises:
        DivergedError: training diverged, or the network gives scores that are no numbers.
        InfeasibleError: there are too few images to ask for, or the strategy needs what the network has not.

    """
    if not config.model.ours and config.select is not None and config.select.proxy is None:
        refuse_images(config.model, int(data.mean.numel()), data.classes, int(data.train.images.shape[-1]))
    if parent is None:
        found = start(config, seed, data)
    else:
        found = advance(config, seed, data, device, trajectory.load(parent))
    return Outcome(trajectory.save(found.after), _spent(found.cost or RoundCost()), _history(found))


def labelled(parent: bytes, budget: int) -> Tensor:
    """The first `budget` labelled images of a stored trajectory, int64; fewer where asking ended before."""
    return trajectory.load(parent).labelled[:budget]


def _spent(cost: RoundCost) -> Mapping[str, float]:
    parts = {"select_train_s": cost.train_s, "select_score_s": cost.score_s, "select_query_s": cost.query_s}
    return {"select_s": cost.seconds, **parts}


def _history(found: Round) -> Sequence[Mapping[str, float]]:
    """The record of the round; none where asking had ended before."""
    after, cost = found.after, found.cost
    if cost is None:
        return ()
    known = {} if found.val_accuracy is None else {"val_accuracy": found.val_accuracy}
    record = {
        "round": len(after.sizes) - 1,
        "labels": len(after.labelled),
        "candidates": found.candidates,
        **known,
        "round_train_s": cost.train_s,
        "round_score_s": cost.score_s,
        "round_query_s": cost.query_s,
    }
    return [record]
