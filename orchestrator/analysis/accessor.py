"""`df.pareto` and `df.al`: analyses as methods of a DataFrame. Importing this module registers the accessors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from orchestrator.analysis import attainment, changes, crowding, curves, knee, membership, pareto
from orchestrator.analysis.comparison import By, Objectives, Over, Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@pd.api.extensions.register_dataframe_accessor("pareto")
class ParetoAccessor:
    """Dominance among the rows of a table of trials.

    `objectives`, `over`, `by`, `select_on` and `role` are those of `orchestrator.analysis.comparison.Question`.
    """

    def __init__(self, df: pd.DataFrame) -> None:
        self._df = df

    def front(
        self,
        objectives: Objectives | None = None,
        *,
        over: Over = None,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
        confidence: float = 0.95,
        seeds: Sequence[int] | None = None,
    ) -> pd.DataFrame:
        """The rows that no other row dominates; see `orchestrator.analysis.pareto.front`."""
        return pareto.front(
            self._df, objectives, over=over, by=by, select_on=select_on, role=role, confidence=confidence, seeds=seeds
        )

    def rank(
        self,
        objectives: Objectives | None = None,
        *,
        over: Over = None,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
    ) -> pd.Series:
        """Ranks of non-dominated sorting; see `orchestrator.analysis.pareto.rank`."""
        return pareto.rank(self._df, objectives, over=over, by=by, select_on=select_on, role=role)

    def hypervolume(
        self,
        reference: Mapping[str, float],
        objectives: Objectives | None = None,
        *,
        over: Over = None,
        by: By = None,
        role: Role | None = "cell",
    ) -> float | pd.Series:
        """Volume dominated up to a reference point; see `orchestrator.analysis.pareto.hypervolume`."""
        return pareto.hypervolume(self._df, reference, objectives, over=over, by=by, role=role)

    def knee(
        self,
        objectives: Objectives | None = None,
        *,
        over: Over = None,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
        confidence: float = 0.95,
    ) -> pd.DataFrame:
        """The row of the front where gains begin to cost most; see `orchestrator.analysis.knee.knee`."""
        return knee.knee(self._df, objectives, over=over, by=by, select_on=select_on, role=role, confidence=confidence)

    def crowding(
        self,
        objectives: Objectives | None = None,
        *,
        over: Over = None,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
    ) -> pd.Series:
        """NSGA-II's crowding distance; see `orchestrator.analysis.crowding.crowding`."""
        return crowding.crowding(self._df, objectives, over=over, by=by, select_on=select_on, role=role)

    def membership(
        self,
        objectives: Objectives | None = None,
        *,
        draws: int = 1000,
        seed: int = 0,
        paired: bool = False,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
    ) -> pd.DataFrame:
        """How often each cell is on the front of resampled seeds; see `orchestrator.analysis.membership.membership`."""
        return membership.membership(
            self._df, objectives, draws=draws, seed=seed, paired=paired, by=by, select_on=select_on, role=role
        )

    def attainment(
        self,
        level: float | Sequence[float] = 0.5,
        objectives: Objectives | None = None,
        *,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
    ) -> pd.DataFrame:
        """What a share of the seeds attains; see `orchestrator.analysis.attainment.attainment`."""
        return attainment.attainment(self._df, level, objectives, by=by, select_on=select_on, role=role)

    def compare(
        self,
        other: pd.DataFrame,
        objectives: Objectives | None = None,
        *,
        reference: Mapping[str, float] | None = None,
        over: Over = None,
        by: By = None,
        select_on: str | None = None,
        role: Role | None = "cell",
        confidence: float = 0.95,
    ) -> changes.Comparison:
        """What changes on the front from this table to another; see `orchestrator.analysis.changes.compare`."""
        return changes.compare(
            self._df, other, objectives, reference=reference, over=over, by=by, select_on=select_on, role=role,
            confidence=confidence,
        )  # fmt: skip


@pd.api.extensions.register_dataframe_accessor("al")
class ActiveLearningAccessor:
    """Learning curves of a table of trials with a `select` stage; see `orchestrator.analysis.curves`."""

    def __init__(self, df: pd.DataFrame) -> None:
        self._df = df

    def curve(
        self, value: str = "accuracy", by: By = None, over: str = "seed", confidence: float = 0.95
    ) -> pd.DataFrame:
        """Mean and interval for each curve and number of labels; see `orchestrator.analysis.curves.curve`."""
        return curves.curve(self._df, value, by, over, confidence)

    def area(self, value: str = "accuracy", by: By = None, confidence: float = 0.95) -> pd.DataFrame:
        """Normalised area under each curve; see `orchestrator.analysis.curves.area`."""
        return curves.area(self._df, value, by, confidence)

    def savings(self, value: str = "accuracy", against: str = "random", by: By = None) -> pd.DataFrame:
        """Share of the labels that each strategy saves; see `orchestrator.analysis.curves.savings`."""
        return curves.savings(self._df, value, against, by)

    def plot(
        self,
        path: str | Path | None = None,
        value: str = "accuracy",
        x: Literal["labels", "select_s", "wall_time_s"] = "labels",
        by: By = None,
        band: Literal["interval", "std"] = "interval",
    ) -> "Figure":
        """The learning curves as a figure; see `orchestrator.analysis.plots.plot`."""
        from orchestrator.analysis import plots

        return plots.plot(self._df, path, value, x, by, band)
