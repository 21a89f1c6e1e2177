"""Adaptive repeats: which configs need one more seed before the front is known.

The front that is looked for is the one that full repeats would show: of the means over all `most` seeds. It is not the
front of the true means, which no number of seeds shows; so a config that has all its seeds has no noise left.

**Model.** That of `analysis.seed_model`: a level for each config, an effect for each seed, a spread like that of
configs that are about as good. Before any variance can be known, PROBE configs spread over the front of the first seeds
get a second one.

**Rule.** Seeds that have not run are drawn from the model's predictive distribution (flat priors on mu and b, s plugged
in), the means over all seeds with them, and their front: p_i is the share of the draws in which config i is on it.
Config i is taken for a member where p_i >= 1/2, so that W = sum_i min(p_i, 1 - p_i) configs are expected to be wrongly
in or out, as far as the model holds. While

    W > wrong x sum_i p_i,    a share of the expected front,

the configs of the largest terms of W are open, as few of them as leave the others' sum within that bound. For each open
config, the seed goes to it or to its rival, the config that most uncertainly dominates it: to whichever has fewer
seeds, and to the open one of two that have equally many.

**Where the model is wrong.** Configs are chosen for a second seed because their first one was good, in part by luck;
that their second is worse is then taken for an effect of the seed. In simulations (120 and 540 configs, equal normal
noise) two to three times as many configs were wrong as `wrong` says; on stored tables, whose noise has heavy tails,
fewer.

**What is whose.** Spending replications where a Pareto set is undecided, by the probability of its errors, is M-OCBA's
and its kin's (Lee, Chew, Teng and Goldsman, IIE Transactions 42, 2010); one seed at a time, for all that still matter,
is racing's (F-Race: Birattari et al., GECCO 2002). Ours are the finite population of seeds, effects of seeds shared by
all configs, drawing fronts in place of bounds on products of normal probabilities (which lets tolerances and exact
objectives in), and the stop at an expected number of errors.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.dominance import nondominated
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.rows import Floats, Mask
from orchestrator.analysis.seed_model import SeedTable

WRONG = 0.02
"""Share of the expected front that may be expected to be wrongly in or out at the end."""

PROBE = 8
"""Configs that show the noise: seven degrees of freedom beside the effect of the second seed."""
DRAWS = 400
"""Fronts that p is a share of."""


def uncertain(
    losses: Sequence[Floats], objectives: Sequence[Objective], most: int, *, wrong: float = WRONG, seed: int = 0
) -> list[int]:
    """Positions of the configs that should get one more seed now, ascending; none where the front is settled.

    Args:
        losses: for each config its seeds so far, shape (seeds, objectives), all to be made small; rows are in the
            study's order of seeds, so that the first row of every config is of the same seed.
        objectives: of each column the tolerance; the direction has been dealt with.
        most: seeds of a full repeat; no config gets more.
        wrong: how many configs may be expected to be wrongly in or out, as a share of the expected front.
        seed: of the draws. The order of the configs does not matter to them.

    Raises:
        ValueError: a config without a seed or with more than `most`, another number of columns than objectives, or a
            loss that is not finite.

    """
    table = SeedTable.of(losses, objectives, most)
    if len(losses) < 2 or (table.counts == most).all():
        return []
    order = table.order()
    probed = _probe(table, order)
    found = probed if len(probed) else _undecided(table.take(order), wrong, np.random.default_rng(seed), order)
    return sorted(int(position) for position in found)


def _probe(table: SeedTable, order: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Configs to be given a second seed so that the noise can be known; none where it is."""
    short = min(PROBE, len(order)) - int((table.counts > 1).sum())
    left = order[table.counts[order] == 1]
    chosen: list[int] = []
    while len(chosen) < short:
        front = nondominated(table.gridded(table.values[left, 0]))
        members, left = left[front], left[~front]
        wanted = min(short - len(chosen), len(members))
        chosen += members[np.linspace(0, len(members) - 1, wanted).round().astype(np.intp)].tolist()
    return np.array(chosen, dtype=np.intp)


def _undecided(
    table: SeedTable, wrong: float, rng: np.random.Generator, names: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """The configs that get a seed, by `names`; `table` is in canonical order."""
    draws = table.gridded(np.stack([model.drawn(table.counts, rng, DRAWS) for model in table.models()], axis=-1))
    left = np.flatnonzero(_ever_on_front(draws))
    draws, counts = draws[:, left], table.counts[left]
    share = np.mean([nondominated(points) for points in draws], axis=0)
    allowed = wrong * share.sum()
    columns = [np.ascontiguousarray(draws[:, :, k]) for k in range(draws.shape[2])]
    given = [_receiver(i, columns, counts, table.most) for i in _open(np.minimum(share, 1 - share), allowed)]
    return names[left[np.unique(np.array(given, dtype=np.intp))]]


def _ever_on_front(draws: Floats) -> Mask:
    """Configs that no other one dominates in every draw by its worst value in each objective alone."""
    best, worst = draws.min(axis=0), draws.max(axis=0)
    rivals = np.unique(worst[nondominated(worst)], axis=0)
    beaten = np.zeros(len(best), dtype=np.bool_)
    for rival in rivals:
        beaten |= (rival <= best).all(axis=1) & (rival < best).any(axis=1)
    return ~beaten


def _open(errors: Floats, allowed: float) -> list[int]:
    """Positions of the largest errors, as few as leave a sum of at most `allowed`."""
    order = np.argsort(errors, kind="stable")
    return sorted(order[np.cumsum(errors[order]) > allowed].tolist())


def _receiver(i: int, columns: Sequence[Floats], counts: npt.NDArray[np.intp], most: int) -> int:
    """Config i, or its rival if that has fewer seeds; `columns` are the draws of each objective."""
    no_worse, better = np.ones(columns[0].shape, dtype=np.bool_), np.zeros(columns[0].shape, dtype=np.bool_)
    for column in columns:
        no_worse &= column <= column[:, i : i + 1]
        better |= column < column[:, i : i + 1]
    dominated = (no_worse & better).mean(axis=0)
    doubt = np.where(counts < most, dominated * (1 - dominated), 0.0)
    rival = int(doubt.argmax())
    return rival if doubt[rival] > 0 and (counts[rival] < counts[i] or counts[i] == most) else i
