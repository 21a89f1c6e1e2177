"""Cells that have more seeds or fewer, compared by the means that all seeds are expected to give."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from orchestrator.analysis.dominance import signs
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.repeats import Positions
from orchestrator.analysis.rows import Floats, Mask, equals
from orchestrator.analysis.seed_model import expected_means


def seed_order(df: pd.DataFrame) -> tuple[int, ...]:
    """The seeds of a table in the order in which its cells got them: the commonest first, finished or not.

    That is the study's order, since nobody gets a seed before the one before it; of equally common ones the first in
    the table comes first.
    """
    seeds = df.loc[equals(df, "role", "cell"), "seed"]
    return tuple(int(seed) for seed in seeds.value_counts(sort=False).sort_values(ascending=False, kind="stable").index)


def of_first_seeds(rows: pd.DataFrame, cells: Positions, seeds: Sequence[int]) -> Mask:
    """Which rows are of a seed before the first one that their cell lacks, in the order of `seeds`; shape (rows,)."""
    place = _places(rows, seeds)
    turn = pd.Series(place).groupby(cells).rank(method="dense").to_numpy() - 1
    # Of a seed that is there twice both rows stay, for `mean_over_seeds` to tell.
    return (turn == place) & (place < len(seeds))


def expected_values(
    rows: pd.DataFrame, cells: Positions, values: Floats, wanted: Sequence[Objective], seeds: Sequence[int]
) -> Floats:
    """The means that all `seeds` are expected to give, shape (cells, objectives); see `seed_model.expected_means`.

    Args:
        rows: trials of first seeds, as `of_first_seeds` chooses them.
        cells: the cell of each row.
        values: their objectives, finite, shape (rows, objectives).
        wanted: the objectives.
        seeds: of a full repeat, in the order in which they are given.

    """
    order = np.lexsort((_places(rows, seeds), cells))
    losses = values[order] * signs(wanted)
    ends = np.flatnonzero(np.diff(cells[order])) + 1
    return expected_means(np.split(losses, ends), wanted, len(seeds)) * signs(wanted)


def _places(rows: pd.DataFrame, seeds: Sequence[int]) -> Floats:
    """The place of each row's seed in `seeds`; their number for another."""
    places = {seed: float(place) for place, seed in enumerate(seeds)}
    return np.array([places.get(seed, float(len(seeds))) for seed in rows["seed"]], dtype=np.float64)
