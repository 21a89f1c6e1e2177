"""Finding a trial by the beginning of its id, in whatever study it is."""

from typing import Any

from orchestrator.errors import TableError
from orchestrator.layout import Layout

Row = dict[Any, Any]


def find_trial(layout: Layout, beginning: str) -> list[Row]:
    """The rows of the one trial whose id begins so, one a study that has it.

    Raises:
        TableError: no trial, or more than one, has an id with this beginning.

    """
    from orchestrator.analysis.load import load

    found: list[Row] = []
    for name in layout.studies():
        df = load(layout.study(name))
        if "trial_id" not in df.columns:
            raise TableError(f"{layout.study(name)}: its table has no column trial_id, so it is no study's")
        found += df[df["trial_id"].str.startswith(beginning)].to_dict("records")
    if not found:
        raise TableError(f"no trial of {layout.root} has an id that begins with {beginning!r}; see the column trial_id")
    if len({row["trial_id"] for row in found}) > 1:
        some = ", ".join(sorted({row["trial_id"] for row in found})[:5])
        raise TableError(f"{beginning}: more than one trial begins so: {some}")
    return found
