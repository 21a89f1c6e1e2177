"""`df.pareto` and `df.al`: analyses as methods of a DataFrame. Importing this module registers the accessors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from orchestrator.analysis import curves, pareto
from orchestrator.analysis.curves import By
from orchestrator.analysis.pareto import Objectives, Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@pd.api.extensions.register_dataframe_accessor("pareto")
class ParetoAccessor:
    """Dominance among the rows of a table of trials; see `orchestrator.analysis.pareto`."""

    def __init__(self, df: pd.DataFrame) -> None:
        self._df = df

    def front(
        self,
        objectives: Objectives | None = None,
        *,
        over: Literal["seed"] | None = None,
        by: str | Sequence[str] | None = None,
        select_on: str | None = None,
        role: Role | None = "cell",
    ) -> pd.DataFrame:
        """The rows that no other row dominates; see `orchestrator.analysis.pareto.front`."""
        return pareto.front(self._df, objectives, over=over, by=by, select_on=select_on, role=role)

    def rank(
        self, objectives: Objectives | None = None, *, select_on: str | None = None, role: Role | None = "cell"
    ) -> pd.Series:
        """Ranks of non-dominated sorting; see `orchestrator.analysis.pareto.rank`."""
        return pareto.rank(self._df, objectives, select_on=select_on, role=role)

    def hypervolume(
        self, reference: Mapping[str, float], objectives: Objectives | None = None, *, role: Role | None = "cell"
    ) -> float:
        """Volume dominated up to a reference point; see `orchestrator.analysis.pareto.hypervolume`."""
        return pareto.hypervolume(self._df, reference, objectives, role=role)


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
