"""How a wrong value and the valid ones are put into a message."""

import difflib
import json
import math
from collections.abc import Iterable

LONGEST = 60


def show(value: object) -> str:
    """A value as one would write it in a study, cut short where it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else "-.inf" if value < 0 else ".inf"
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # A study may hold what would steer a terminal.
    text = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[: LONGEST + 1]
    )
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def kind(value: object) -> str:
    """What sort of value it is, in a study's words."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a truth value", int: "a number", float: "a number", str: "text", dict: "a mapping"}
    return names.get(type(value), "a list")


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, else all of them."""
    options = sorted(known)
    # A word of any length can come from a study; the comparison is quadratic.
    near = difflib.get_close_matches(word[:100], options, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(options)}"
