"""What is known of seeds that did not run: a model of configs that have more seeds or fewer.

In each objective the loss of config i under the j-th seed of the study is

    y_ij = mu_i + b_j + e_ij,    e_ij ~ N(0, s_i^2)

with b_j what a seed does to every config alike (its split, its dense parent), by weighted least squares, and

    s_i^2 = (PRIOR v_i + SS_i) / (PRIOR + n_i - 1)
    v_i = sum_r w_r SS_(r) / sum_r w_r (n_(r) - 1),    w_r = 2^(-r / NEAR)

where SS_i are the squared residuals of the n_i seeds of config i, and (r) is the r-th nearest in this objective of the
configs that have several seeds: good networks scatter less than bad ones, and with one variance for all nearly every
config would seem uncertain. (Shrinking variances: Smyth, "Linear models and empirical Bayes methods", 2004; here its
prior degrees of freedom are fixed, and its target is local.) Times, and objectives whose tolerance is a percentage,
scatter in proportion: their logarithms are modelled, or where their losses touch or cross zero, which have none, the
losses themselves. An objective that is equal under all seeds of every repeated config is exact: it has no noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.dominance import on_grid
from orchestrator.analysis.objectives import Objective
from orchestrator.analysis.rows import Floats
from orchestrator.analysis.tables import COLUMNS

PRIOR = 4.0
"""Degrees of freedom that the pooled variance counts in a config's own."""

NEAR = 6
"""Neighbours after which the weight of a config in another's variance is halved."""

SMALLEST = 1e-6
"""Share of the largest variance below which another is no longer heeded."""

ROUNDS = 3
"""Turns of fitting effects and variances to each other."""

_CLOCKS = ("s", "ms")


def expected_means(losses: Sequence[Floats], objectives: Sequence[Objective], most: int) -> Floats:
    """The means that full repeats are expected to have, shape (configs, objectives).

    Seeds that have not run are filled in by mu_i + b_j, so that a config is not taken for better because the seed that
    it has is a kind one. The front of these means is the front that the seeds so far show.

    Args:
        losses: for each config its seeds so far, shape (seeds, objectives), all to be made small; rows are in the
            study's order of seeds, so that the first row of every config is of the same seed.
        objectives: of each column the tolerance; the direction has been dealt with.
        most: seeds of a full repeat; no config has more.

    Raises:
        ValueError: a config without a seed or with more than `most`, another number of columns than objectives, or a
            loss that is not finite.

    """
    table = SeedTable.of(losses, objectives, most)
    return np.stack([one.filled(table.counts, most) for one in table.models()], axis=1)


@dataclass(frozen=True, slots=True)
class SeedTable:
    """Losses by config, seed and objective, NaN where a seed has not run; at least one seed each."""

    values: Floats
    counts: npt.NDArray[np.intp]
    objectives: tuple[Objective, ...]

    @classmethod
    def of(cls, losses: Sequence[Floats], objectives: Sequence[Objective], most: int) -> "SeedTable":
        """The losses of each config, shape (seeds, objectives), as a table; see `expected_means`."""
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
        """Seeds of a full repeat."""
        return self.values.shape[1]

    def order(self) -> npt.NDArray[np.intp]:
        """Configs by their values, so that what is drawn does not depend on the order they came in."""
        flat = np.nan_to_num(self.values.reshape(len(self.values), -1), nan=np.inf)
        return np.lexsort(flat.T[::-1])

    def take(self, positions: npt.NDArray[np.intp]) -> "SeedTable":
        """The configs at these positions."""
        return SeedTable(self.values[positions], self.counts[positions], self.objectives)

    def models(self) -> "list[SeedModel]":
        """What is known of each objective."""
        return [SeedModel.fit(self.values[:, :, k], self.counts, one) for k, one in enumerate(self.objectives)]

    def gridded(self, losses: Floats) -> Floats:
        """Losses on the grids of the tolerances, shape (..., objectives)."""
        columns = [
            on_grid(losses[..., k], one.tolerance, relative=one.relative) for k, one in enumerate(self.objectives)
        ]
        return np.stack(columns, axis=-1)


@dataclass(frozen=True, slots=True)
class SeedModel:
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
    def fit(cls, values: Floats, counts: npt.NDArray[np.intp], objective: Objective) -> "SeedModel":
        """The model of losses of shape (configs, seeds), of which each config has the first `counts`."""
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

    def drawn(self, counts: npt.NDArray[np.intp], rng: np.random.Generator, draws: int) -> Floats:
        """Draws of the means over all seeds, shape (draws, configs)."""
        configs, most = self.values.shape
        if self.exact:
            return np.broadcast_to(self.raw(self.values[:, 0]), (draws, configs))
        effects = self.effects + rng.standard_normal((draws, most)) @ self.factor.T
        noise = rng.standard_normal((most, draws, configs)) * self.spread
        middle = self.own(effects, counts) + noise[0] / np.sqrt(counts)
        total = np.nansum(self.raw(self.values), axis=1) + np.zeros((draws, 1))
        for j in range(1, most):
            total += np.where(counts <= j, self.raw(middle + effects[:, j, None] + noise[j]), 0.0)
        return total / most

    def raw(self, values: Floats) -> Floats:
        """Losses again, where their logarithms were modelled."""
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
