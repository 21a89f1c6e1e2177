"""Finding a trial by the beginning of its id, in whatever study it is."""

from typing import Any

from orchestrator.errors import TableError
from orchestrator.layout import Layout

Row = dict[Any, Any]


def find_trial(layout: Layout, beginning: str, *, skip_damaged: bool = False) -> tuple[list[Row], list[str]]:
    """The rows of the one trial whose id begins so, one a study that has it; and what was left out, as was asked.

    Raises:
        TableError: no trial, or more than one, has an id with this beginning; or a table is damaged.

    """
    from orchestrator.analysis.load import load

    found, left_out = list[Row](), list[str]()
    for name in layout.studies():
        try:
            df = load(layout.study(name))
        except TableError as error:
            if not skip_damaged:
                raise TableError(f"{error} --skip-damaged leaves it out") from error
            left_out.append(f"left out: {error}")
            continue
        if "trial_id" not in df.columns:
            raise TableError(f"{layout.study(name)}: its table has no column trial_id, so it is no study's")
        found += df[df["trial_id"].str.startswith(beginning)].to_dict("records")
    if not found:
        raise TableError(f"no trial of {layout.root} has an id that begins with {beginning!r}; see the column trial_id")
    if len({row["trial_id"] for row in found}) > 1:
        some = ", ".join(sorted({row["trial_id"] for row in found})[:5])
        raise TableError(f"{beginning}: more than one trial begins so: {some}")
    return found, left_out
