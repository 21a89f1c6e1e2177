"""`df.pareto`: fronts as methods of a DataFrame. Importing this module registers the accessor."""

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd

from orchestrator.analysis import pareto
from orchestrator.analysis.pareto import Objectives, Role


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
