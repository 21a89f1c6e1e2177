"""How sure it is that a setting is on the front: the bootstrap over its seeds.

Source of the bootstrap: Efron, Annals of Statistics 7, 1979. That a share of draws is read as the certainty of
membership is ours; it is no probability that the setting is on the front of all seeds there could be.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.bootstrap import EXACT_UP_TO, resamples, weighted_means
from orchestrator.analysis.comparison import By, Compared, Objectives, Question, Role, compared, names
from orchestrator.analysis.dominance import losses_of, nondominated
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.pareto import front_mask
from orchestrator.analysis.repeats import Positions, cell_keys, repeats_of
from orchestrator.analysis.rows import Floats, Mask
from orchestrator.errors import TableError

_RULERS, _RULERS_AT_ONCE = 2048, 64
_BLOCK = 2**18


def membership(
    df: pd.DataFrame,
    objectives: Objectives | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
    paired: bool = False,
    by: By = None,
    select_on: str | None = None,
    role: Role | None = "cell",
) -> pd.DataFrame:
    """For each cell the share of bootstrap draws in which the mean over its seeds is on the front.

    In a draw every cell draws as many of its own seeds as it has, with replacement, independently of the other cells;
    the front is that of the drawn means, with the tolerances of `pareto.front`. With `paired` cells that have the same
    seeds draw the same ones: what a seed does to all cells alike (its split, its batches) then makes no cell
    uncertain. A cell with one seed has one mean: it is uncertain only in what the others do.

    A cell's draws depend on `seed` and on its own settings alone (with `paired` on its seeds), so that neither the
    order of the rows nor the other cells of the table change them. Cells that are dominated whatever is drawn (some
    cell's worst values dominate their best) are 0 without being drawn.

    Args:
        df: trials with seeds and config columns, see `repeats.mean_over_seeds`.
        objectives: as in `pareto.front`.
        draws: number of draws; a share has a standard error of at most 0.5 / sqrt(draws).
        seed: of the draws, a whole number >= 0.
        paired: see above.
        by: columns; each combination of their values has a front of its own.
        select_on: as in `pareto.front`.
        role: as in `pareto.front`.

    Returns:
        A row per cell, as `mean_over_seeds` gives them, with `membership` (from 0 to 1) and `on_front` (whether the
        mean over all its seeds is on the front). `attrs` as in `pareto.front`; a cell whose mean is undefined
        (opposite infinities) is left out.

    Raises:
        TableError: as `pareto.front`; also a wrong number of draws, or no seeds or config columns.

    """
    if draws < 1 or seed < 0:
        msg = f"membership: draws={draws} must be at least 1 and seed={seed} at least 0"
        raise TableError(msg)
    taking_part = compared(df, Question(objectives, "seed", by, select_on, role))
    rows = df.iloc[taking_part.trials]
    values = repeats_of(rows, taking_part.part, names(taking_part.wanted), len(taking_part.values))
    shares = np.zeros(len(values))
    for members in taking_part.groups(by):
        own = members[possible(values[members], taking_part.wanted)]
        labels = _seed_labels(rows, taking_part.part, own) if paired else _cell_labels(taking_part, own)
        picks = [_stream(label, seed) for label in labels]
        shares[own] = _shares(values[own], taking_part.wanted, draws, picks)
    found = taking_part.rows(np.ones(len(values), dtype=np.bool_))
    return found.assign(membership=shares, on_front=front_mask(taking_part, by))


def possible(values: Floats, wanted: Sequence[Objective]) -> Mask:
    """Which cells may be on the front of some draw; of the others this is impossible.

    A mean lies between the smallest and the largest value drawn, and grids of tolerances keep that order. So where the
    worst values of one cell dominate the best ones of another, the first dominates the second in every draw, and so
    does one that is possible: of those that rule out others in a chain the first is ruled out by none. At most 2,048
    of the cells are asked whether they rule out others, so that a few impossible ones may remain.

    Args:
        values: shape (cells, seeds, objectives), NaN where a cell has fewer seeds.
        wanted: the objectives.

    Returns:
        Shape (cells,).

    """
    if len(values) == 0:
        return np.zeros(0, dtype=np.bool_)
    low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    ends = losses_of(np.concatenate([low, high]), wanted)
    best, worst = np.minimum(ends[: len(low)], ends[len(low) :]), np.maximum(ends[: len(low)], ends[len(low) :])
    rulers = np.unique(worst[nondominated(worst)], axis=0)
    order = np.argsort(((rulers - rulers.min(axis=0)) / np.maximum(np.ptp(worst, axis=0), 1e-300)).sum(axis=1))
    left = np.arange(len(best))
    for start in range(0, min(len(rulers), _RULERS), _RULERS_AT_ONCE):
        left = left[~_ruled_out(best[left], rulers[order[start : start + _RULERS_AT_ONCE]])]
    mask = np.zeros(len(best), dtype=np.bool_)
    mask[left] = True
    return mask


def _ruled_out(best: Floats, rulers: Floats) -> Mask:
    as_good = np.ones((len(rulers), len(best)), dtype=np.bool_)
    better = np.zeros_like(as_good)
    for ruler, point in zip(rulers.T, best.T, strict=True):
        as_good &= ruler[:, None] <= point
        better |= ruler[:, None] < point
    return np.logical_or.reduce(as_good & better, axis=0)


def _shares(values: Floats, wanted: Sequence[Objective], draws: int, picks: Sequence[np.random.Generator]) -> Floats:
    """The share of draws in which each cell is on the front, shape (cells,)."""
    if len(values) == 0:
        return np.zeros(0)
    means, drawn = _drawn_means(values, draws, picks)
    losses = losses_of(means, wanted)
    # moocore sorts by the last objective, and sorts what is nearly in order in three quarters of the time.
    order = np.argsort(means[drawn[:, 0], -1], kind="stable")
    drawn = np.ascontiguousarray(drawn[order].T)
    hits, step = np.zeros(len(values), dtype=np.int64), max(1, _BLOCK // len(values))
    for start in range(0, draws, step):
        for points in np.take(losses, drawn[start : start + step], axis=0):
            hits[order] += nondominated(points)
    return hits / draws


def _drawn_means(
    values: Floats, draws: int, picks: Sequence[np.random.Generator]
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Means that may come up, shape (means, objectives), and which of them each cell has in each draw, (cells, draws).

    Few seeds have few means: a draw is one of the seeds^seeds equally likely sequences, and most sequences share
    their mean with others.
    """
    seeds = (~np.isnan(values[..., 0])).sum(axis=1)
    drawn, tables, known = np.zeros((len(values), draws), dtype=np.int64), list[Floats](), 0
    for n in np.unique(seeds).tolist():
        cells = np.flatnonzero(seeds == n)
        own, own_picks = values[cells, :n], [picks[cell] for cell in cells.tolist()]
        if n <= EXACT_UP_TO:
            kind_of = _kinds(n)
            table = weighted_means(own[:, None], resamples(n)[0][None])
            which = np.stack([kind_of[pick.integers(n**n, size=draws)] for pick in own_picks])
        else:
            table = np.stack([_means_of_draws(one, draws, pick) for one, pick in zip(own, own_picks, strict=True)])
            which = np.broadcast_to(np.arange(draws), (len(cells), draws))
        drawn[cells] = known + np.arange(len(cells))[:, None] * table.shape[1] + which
        tables.append(table.reshape(-1, values.shape[2]))
        known += tables[-1].shape[0]
    return np.concatenate(tables), drawn


def _kinds(seeds: int) -> npt.NDArray[np.int64]:
    """Which row of `resamples` each sequence of drawn seeds is, shape (seeds^seeds,)."""
    sequences = np.stack(np.unravel_index(np.arange(seeds**seeds), (seeds,) * seeds), axis=1)
    counts = (sequences[:, :, None] == np.arange(seeds)).sum(axis=1)
    base = (seeds + 1) ** np.arange(seeds)
    codes = resamples(seeds)[0] @ base
    order = np.argsort(codes)
    return order[np.searchsorted(codes[order], counts @ base)]


def _means_of_draws(values: Floats, draws: int, pick: np.random.Generator) -> Floats:
    """Means of one cell, shape (seeds, objectives) to (draws, objectives)."""
    chosen = np.sort(pick.integers(len(values), size=(draws, len(values))), axis=1)
    counts = np.stack([(chosen == i).sum(axis=1) for i in range(len(values))], axis=1)
    return weighted_means(values[None], counts)


def _stream(label: str, seed: int) -> np.random.Generator:
    digest = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(key=np.array([seed, digest], dtype=np.uint64)))


def _cell_labels(taking_part: Compared, cells: Positions) -> list[str]:
    """What tells each cell from the others, as text; a null says nothing."""
    table = taking_part.table
    columns = {name: table[name].iloc[taking_part.positions[cells]].tolist() for name in sorted(cell_keys(table))}
    parts = [[_text(name, value) for value in column] for name, column in columns.items()]
    return [";".join(filter(None, texts)) for texts in zip(*parts, strict=True)]


def _text(name: str, value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{name}={float(value)!r}" if isinstance(value, int | float) else f"{name}={value}"


def _seed_labels(rows: pd.DataFrame, part: Positions, cells: Positions) -> list[str]:
    """The seeds of each cell, as text."""
    seeds: defaultdict[int, list[int]] = defaultdict(list)
    for cell, seed in zip(part.tolist(), rows["seed"].tolist(), strict=True):
        seeds[cell].append(seed)
    return [str(sorted(seeds[cell])) for cell in cells.tolist()]
