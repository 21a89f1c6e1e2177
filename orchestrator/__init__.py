"""Sweeps over compression and labelling budgets, and the tables that they leave.

`orchestrator.load("results/<study>")` reads a table; with it `df.pareto` becomes available.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.analysis.load import load as load

    __version__: str

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    # pandas is loaded with the first table and the metadata with the first question, not with the command line.
    if name == "load":
        from orchestrator.analysis.load import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("sweep-orchestrator")
    msg = f"module 'orchestrator' has no attribute {name!r}"
    raise AttributeError(msg)
