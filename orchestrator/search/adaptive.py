"""Adaptive repeats: which configs need one more seed before the front is known.

The front that is looked for is the one that full repeats would show: of the means over all `most` seeds. It is not the
front of the true means, which no number of seeds shows; so a config that has all its seeds has no noise left.

**Model.** In each objective the loss of config i under the j-th seed of the study is

    y_ij = mu_i + b_j + e_ij,    e_ij ~ N(0, s_i^2)

with b_j what a seed does to every config alike (its split, its dense parent), by weighted least squares, and

    s_i^2 = (PRIOR v_i + SS_i) / (PRIOR + n_i - 1)
    v_i = sum_r w_r SS_(r) / sum_r w_r (n_(r) - 1),    w_r = 2^(-r / NEAR)

where SS_i are the squared residuals of the n_i seeds of config i, and (r) is the r-th nearest in this objective of the
configs that have several seeds: good networks scatter less than bad ones, and with one variance for all nearly every
config would seem uncertain. (Shrinking variances: Smyth, "Linear models and empirical Bayes methods", 2004; here its
prior degrees of freedom are fixed, and its target is local.) Times, and objectives whose tolerance is a percentage,
scatter in proportion: their logarithms are modelled, or where their losses touch or cross zero, which have none, the
losses themselves. An objective that is equal under all seeds of every repeated
config is exact: it has no noise. Before any variance can be known, PROBE configs spread over the front of the first
seeds get a second one.

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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.dominance import nondominated, on_grid
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.tables import COLUMNS

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WRONG = 0.02
"""Share of the expected front that may be expected to be wrongly in or out at the end."""

PROBE = 8
"""Configs that show the noise: seven degrees of freedom beside the effect of the second seed."""

PRIOR = 4.0
"""Degrees of freedom that the pooled variance counts in a config's own."""

NEAR = 6
"""Neighbours after which the weight of a config in another's variance is halved."""

SMALLEST = 1e-6
"""Share of the largest variance below which another is no longer heeded."""

ROUNDS = 3
"""Turns of fitting effects and variances to each other."""

DRAWS = 400
_CLOCKS = ("s", "ms")


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
    table = _Table.of(losses, objectives, most)
    if len(losses) < 2 or (table.counts == most).all():
        return []
    order = table.order()
    probed = _probe(table, order)
    found = probed if len(probed) else _undecided(table.take(order), wrong, np.random.default_rng(seed), order)
    return sorted(int(position) for position in found)


def expected_means(losses: Sequence[Floats], objectives: Sequence[Objective], most: int) -> Floats:
    """The means that full repeats are expected to have, shape (configs, objectives).

    Seeds that have not run are filled in by mu_i + b_j, so that a config is not taken for better because the seed that
    it has is a kind one. The front of these means is the front that the seeds so far show.

    Raises:
        ValueError: as `uncertain`.

    """
    table = _Table.of(losses, objectives, most)
    return np.stack([one.filled(table.counts, most) for one in table.models()], axis=1)


@dataclass(frozen=True, slots=True)
class _Table:
    """Losses by config, seed and objective, NaN where a seed has not run; at least one seed each."""

    values: Floats
    counts: npt.NDArray[np.intp]
    objectives: tuple[Objective, ...]

    @classmethod
    def of(cls, losses: Sequence[Floats], objectives: Sequence[Objective], most: int) -> "_Table":
        values = np.full((len(losses), most, len(objectives)), np.nan)
        for i, seeds in enumerate(losses):
            if seeds.ndim != 2 or not 1 <= len(seeds) <= most or seeds.shape[1] != len(objectives):
                msg = (
                    f"losses[{i}] has shape {seeds.shape}; wanted are 1 to {most} seeds x {len(objectives)} objectives"
                )
                raise ValueError(msg)
            if not np.isfinite(seeds).all():
                msg = f"losses[{i}] holds a value that is not finite: leave configs out that failed"
                raise ValueError(msg)
            values[i, : len(seeds)] = seeds
        return cls(values, np.array([len(seeds) for seeds in losses], dtype=np.intp), tuple(objectives))

    @property
    def most(self) -> int:
        return self.values.shape[1]

    def order(self) -> npt.NDArray[np.intp]:
        """Configs by their values, so that what is drawn does not depend on the order they came in."""
        flat = np.nan_to_num(self.values.reshape(len(self.values), -1), nan=np.inf)
        return np.lexsort(flat.T[::-1])

    def take(self, positions: npt.NDArray[np.intp]) -> "_Table":
        return _Table(self.values[positions], self.counts[positions], self.objectives)

    def models(self) -> "list[_Model]":
        return [_Model.fit(self.values[:, :, k], self.counts, one) for k, one in enumerate(self.objectives)]

    def gridded(self, losses: Floats) -> Floats:
        """Losses on the grids of the tolerances, shape (..., objectives)."""
        columns = [
            on_grid(losses[..., k], one.tolerance, relative=one.relative) for k, one in enumerate(self.objectives)
        ]
        return np.stack(columns, axis=-1)


def _probe(table: _Table, order: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
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


@dataclass(frozen=True, slots=True)
class _Model:
    """One objective: its values in logarithms where `sign` is not 0, and what is known of their noise.

    Shapes: values (configs, seeds), effects (seeds,) from 0 for the first one, factor (seeds, seeds) of Cholesky of the
    effects' covariance, spread (configs,), the standard deviation of one seed.
    """

    values: Floats
    sign: float
    exact: bool
    effects: Floats
    factor: Floats
    spread: Floats

    @classmethod
    def fit(cls, values: Floats, counts: npt.NDArray[np.intp], objective: Objective) -> "_Model":
        seeds = values.shape[1]
        nothing = np.zeros(seeds), np.zeros((seeds, seeds)), np.zeros(len(values))
        if (np.isnan(values) | (values == values[:, :1])).all():
            return cls(values, 0.0, True, *nothing)
        sign = _sign(values, objective)
        known = np.log(sign * values) if sign else values
        return cls(known, sign, False, *_noise(known, counts))

    def own(self, effects: Floats, counts: npt.NDArray[np.intp]) -> Floats:
        """The mean of the seeds that ran, less their effects; shape (..., configs)."""
        before = np.cumsum(effects, axis=-1)[..., counts - 1]
        return (np.nansum(self.values, axis=1) - before) / counts

    def filled(self, counts: npt.NDArray[np.intp], most: int) -> Floats:
        """Means over all seeds with mu_i + b_j for those that have not run; shape (configs,)."""
        if self.exact:
            return self.raw(self.values[:, 0])
        guessed = self.own(self.effects, counts)[:, None] + self.effects[:most]
        return self.raw(np.where(np.isnan(self.values), guessed, self.values)).mean(axis=1)

    def drawn(self, counts: npt.NDArray[np.intp], rng: np.random.Generator) -> Floats:
        """Draws of the means over all seeds, shape (draws, configs)."""
        configs, most = self.values.shape
        if self.exact:
            return np.broadcast_to(self.raw(self.values[:, 0]), (DRAWS, configs))
        effects = self.effects + rng.standard_normal((DRAWS, most)) @ self.factor.T
        noise = rng.standard_normal((most, DRAWS, configs)) * self.spread
        middle = self.own(effects, counts) + noise[0] / np.sqrt(counts)
        total = np.nansum(self.raw(self.values), axis=1) + np.zeros((DRAWS, 1))
        for j in range(1, most):
            total += np.where(counts <= j, self.raw(middle + effects[:, j, None] + noise[j]), 0.0)
        return total / most

    def raw(self, values: Floats) -> Floats:
        return self.sign * np.exp(values) if self.sign else values


def _sign(values: Floats, objective: Objective) -> float:
    """The sign of the losses of an objective that scatters in proportion; 0 for another, or if signs differ."""
    clock = objective.column in COLUMNS and COLUMNS[objective.column].unit in _CLOCKS
    if not (objective.relative or clock):
        return 0.0
    lowest, highest = np.sign(np.nanmin(values)), np.sign(np.nanmax(values))
    return float(lowest) if lowest == highest else 0.0


def _noise(values: Floats, counts: npt.NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Effects of the seeds, the factor of their covariance, and the spread of one seed of each config."""
    seeds, seen, freedom = values.shape[1], int(counts.max()), int((counts - 1).sum())
    effects, covariance, variances = np.zeros(seeds), np.zeros((seeds, seeds)), np.ones(len(values))
    known = freedom > seen - 1
    for _ in range(ROUNDS):
        if known and variances.any():
            weights = 1 / np.maximum(variances, SMALLEST * variances.max())
            effects[1:seen], covariance[1:seen, 1:seen] = _effects(values[:, :seen], counts, weights)
        variances = _variances(values - effects, counts, 1 - (seen - 1) / freedom if known else 1.0)
    factor = np.zeros((seeds, seeds))
    if covariance.any():
        factor[1:seen, 1:seen] = np.linalg.cholesky(covariance[1:seen, 1:seen])
    return effects, factor, np.sqrt(variances)


def _effects(values: Floats, counts: npt.NDArray[np.intp], weights: Floats) -> tuple[Floats, Floats]:
    """Least squares of the effects of all seeds but the first, weighted by 1 / variance, and their covariance."""
    ran = ~np.isnan(values)
    weighted = ran * weights[:, None]
    # The normal equations once each config's own mean is taken out; the first seed is the origin.
    left = np.diag(weighted.sum(axis=0)) - (weighted.T / counts) @ ran
    centred = np.where(ran, values - (np.nansum(values, axis=1) / counts)[:, None], 0.0)
    covariance = np.asarray(np.linalg.inv(left[1:, 1:]), dtype=np.float64)
    return covariance @ (weights @ centred)[1:], covariance


def _variances(levels: Floats, counts: npt.NDArray[np.intp], share: float) -> Floats:
    """Variance of one seed of each config; `share` of the degrees of freedom are left by the effects of the seeds."""
    ran = ~np.isnan(levels)
    means = np.nansum(levels, axis=1) / counts
    squares = (np.where(ran, levels - means[:, None], 0.0) ** 2).sum(axis=1)
    repeated = np.flatnonzero(counts > 1)
    freedom = share * (counts[repeated] - 1)
    nearest = np.argsort(np.abs(means[:, None] - means[repeated]), axis=1, kind="stable")
    weights = 0.5 ** (np.arange(len(repeated)) / NEAR)
    local = (squares[repeated][nearest] @ weights) / (freedom[nearest] @ weights)
    return (PRIOR * local + squares) / (PRIOR + counts - 1)


def _undecided(
    table: _Table, wrong: float, rng: np.random.Generator, names: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """The configs that get a seed, by `names`; `table` is in canonical order."""
    draws = table.gridded(np.stack([model.drawn(table.counts, rng) for model in table.models()], axis=-1))
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
