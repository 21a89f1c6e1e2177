"""What tells the rows of a table apart, and puts them in order."""

import pandas as pd

from orchestrator.analysis.rows import hashable
from orchestrator.analysis.tables import is_config_column


def varied_leaves(df: pd.DataFrame) -> list[str]:
    """The leaves of the config in which rows differ, in the order of the columns.

    A null usually says that a leaf had no effect on a row, so that alone it tells nothing: a leaf that is null in some
    rows and has one value in the others counts only where rows could not be told apart without it.
    """
    leaves = [str(name) for name in df.columns if is_config_column(str(name))]
    table = pd.DataFrame({name: hashable(df[name]) for name in leaves})
    told = [name for name in leaves if table[name].nunique() > 1]
    for name in leaves:
        if name not in told and table[name].nunique(dropna=False) > 1 and _adds(table, told, name):
            told.append(name)
    return [name for name in leaves if name in told]


def _adds(table: pd.DataFrame, told: list[str], name: str) -> bool:
    """Whether a leaf tells rows apart that are equal in those known."""
    return len(table[[*told, name]].drop_duplicates()) > len(table[told].drop_duplicates() if told else table.head(1))


def in_order(df: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of their ids, so that sums and pictures do not depend on the order in which they came."""
    return df.sort_values("trial_id", kind="stable") if "trial_id" in df.columns else df
