"""Rounds of labelling whose labels a person gives: with the same answers, the trajectory of a simulated study.

Every image of the folder is in the pool. None is held out, so that no accuracy is known and asking cannot end by one.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from trainables.active.rounds import Round, advance
from trainables.active.scoring import refuse_without_features
from trainables.active.strategies.registry import READ_FEATURES
from trainables.active.trajectory import Trajectory
from trainables.config import Device, TrialConfig
from trainables.data.imagefolder import FolderImages
from trainables.data.load import Dataset, Split, statistics
from trainables.keys import select_of, selection_network
from trainables.models.build import build
from trainables.models.foreign import refuse_images
from trainables.training.randomness import generator


def pool_of(images: FolderImages, files: Sequence[str]) -> Dataset:
    """The images named by `files`, which are sorted, as a set that has no other part; unlabelled ones have label -1."""
    everything = Split(images.images, images.labels)
    if len(files) < len(images.paths):
        places = {path: place for place, path in enumerate(images.paths)}
        everything = everything.subset(torch.tensor([places[file] for file in files]))
    nothing = Split(everything.images[:0], everything.labels[:0])
    return Dataset(everything, nothing, nothing, len(images.classes), *statistics(everything.images))


def refuse_network(config: TrialConfig, data: Dataset) -> None:
    """Find out, before anybody labels, whether the selection network takes the images and has what the strategy reads.

    Raises:
        CodeError: a user's own network cannot be made.
        InfeasibleError: it does not.

    """
    select, network, channels = select_of(config), selection_network(config), int(data.mean.numel())
    if not select.trains():
        return
    if not network.ours:
        refuse_images(network, channels, data.classes, int(data.train.images.shape[-1]))
    if select.strategy in READ_FEATURES:
        refuse_without_features(build(network, channels, data.classes, allow_code=True))


def begin(config: TrialConfig, seed: int, data: Dataset, given: Sequence[int]) -> Trajectory:
    """The initial draw: the images that have labels already, then as many others as `select.initial` lacks.

    Where there are none it is the draw of `trainables.active.rounds.start`, of all images if there are fewer.
    """
    count = max(0, min(select_of(config).initial, len(data.train)) - len(given))
    first = torch.tensor(given, dtype=torch.int64)
    free = torch.ones(len(data.train), dtype=torch.bool)
    free[first] = False
    others = free.nonzero().flatten()
    drawn = others[torch.randperm(len(others), generator=generator(seed, "query"))[:count]]
    return Trajectory(torch.cat([first, drawn]), (len(given) + count,))


def taken_up(before: Trajectory, places: Sequence[int | None], more: Sequence[int]) -> Trajectory:
    """A trajectory in a folder that has changed since.

    Args:
        before: as it was stored.
        places: where each of its images is now; None where one has vanished.
        more: images that were labelled without having been asked for; they join the newest round.

    """
    rounds: list[list[int]] = []
    first = 0
    for size in before.sizes:
        rounds.append([place for place in places[first : first + size] if place is not None])
        first += size
    rounds[-1] += more
    labelled = torch.tensor([place for members in rounds for place in members], dtype=torch.int64)
    return replace(before, labelled=labelled, sizes=tuple(map(len, rounds)))


def proceed(config: TrialConfig, seed: int, data: Dataset, device: Device, before: Trajectory, count: int) -> Round:
    """The round after `before`, which asks for `count` images, or for those that are left.

    Raises:
        DivergedError: training diverged, or the network gives scores that are no numbers.
        InfeasibleError: nothing is left, or the strategy needs what the network has not.

    """
    count = max(1, min(count, len(data.train) - len(before.labelled)))
    asking = select_of(config).model_copy(update={"query_sizes": (count,)})
    return advance(config.model_copy(update={"select": asking}), seed, data, device, before)
