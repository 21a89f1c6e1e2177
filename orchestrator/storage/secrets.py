"""Secrets are taken out of every text that is kept or shown."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

HIDDEN = "***"
_FILES = ("FILE", "PATH", "DIR", "FOLDER", "HOME")
SHORTEST = 6
"""Shorter values stand in too many innocent places."""

_IN_URI = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s@'\"]*@|(?<=://)[^\s/@'\"]*(?:/[^\s/@'\"]+)?@")
_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
_IN_QUERY = re.compile(
    r"(?i)([?&](?:[a-z_.-]*(?:secret|token|password|credential|signature|access_?key)[a-z_.-]*|sig|key)=)[^&\s'\"]+"
)


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """The text without credentials of URIs, the `known` secrets and those that the environment holds."""
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_URI.sub(f"{HIDDEN}@", text))
    for secret in sorted({*known, *_of_environment()}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _of_environment() -> Iterable[str]:
    """Values of variables whose names say that they are secret; those that name files are none."""
    return (
        value
        for name, value in os.environ.items()
        if _NAMES.search(name) and len(value) >= SHORTEST and not _names_a_file(name, value)
    )


def _names_a_file(name: str, value: str) -> bool:
    return value.startswith("/") and (name.upper().endswith(_FILES) or Path(value).exists())
