"""Words that screens, reports and warnings share: an error in a line, and why a trial could not be compared."""

import re
from collections.abc import Mapping

LONGEST = 600

LEFT_OUT: Mapping[str, str] = {
    "status": "not complete",
    "mixed_hosts": "timed on different machines",
    "missing": "without a value",
    "gap": "of a seed after one that did not run",
}
"""The reasons of `comparison.Compared.left_out`."""

_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\w.~-]*/)+[\w.~-]*")
_NUMBER = re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{8,}\b|[-+]?\b\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\b")


def brief(error: str, longest: int = LONGEST) -> str:
    """An error as one line: of a traceback its message, else all of it.

    Equal lines are one kind of error. Where one is longer than `longest` characters, words in its middle are left out:
    it begins with what is wrong and ends with what to do.
    """
    lines = error.strip().splitlines() or [""]
    traced = any(line.startswith('  File "') for line in lines)
    words = (lines[-1] if traced else " ".join(lines)).split()
    text = " ".join(words)
    if len(text) <= longest:
        return text
    return f"{_cut(text[: 2 * longest // 3])} ... {_cut(text[: -longest // 3 : -1])[::-1]}"


def _cut(text: str) -> str:
    """Without the word that may be torn at its end."""
    return text.rpartition(" ")[0] or text


def signature(error: str) -> str:
    """An error without what differs from one time to the next: its numbers, keys and paths."""
    return _NUMBER.sub("#", _PATH.sub("PATH", brief(error)))


_CONTROLS = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HARMLESS: Mapping[int, str] = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")


def harmless(text: str) -> str:
    """The text without what a terminal would obey, or what turns the order of letters round."""
    return text.translate(_HARMLESS)
