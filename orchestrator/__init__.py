"""Sweeps over compression and labelling budgets, and the tables that they leave.

`orchestrator.load("results/<study>")` reads a table; with it `df.pareto` becomes available.
"""

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.analysis.load import load as load

__all__ = ["__version__", "load"]

__version__ = metadata.version("sweep-orchestrator")


def __getattr__(name: str) -> object:
    # pandas is loaded with the first table, not with the command line.
    if name == "load":
        from orchestrator.analysis.load import load

        return load
    msg = f"module 'orchestrator' has no attribute {name!r}"
    raise AttributeError(msg)
