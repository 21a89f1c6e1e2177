"""Where results and data may lie: paths of this machine mean nothing to another one."""

import re
from pathlib import Path
from urllib.parse import unquote

from orchestrator.errors import RunError
from orchestrator.storage.address import SHOWN, parsed

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_uri(place: str) -> bool:
    """Whether a place is a URI, as s3://bucket/prefix is, and no path."""
    return _SCHEME.match(place) is not None


def _checked(option: str, place: str) -> str:
    """A place as it may stand in a command line that others can read; file:// is a path.

    Raises:
        RunError: the URI holds a user, a password or a key.
        StoreError: nothing opens such a URI.

    """
    if place.startswith("file://"):
        return unquote(place.removeprefix("file://").removeprefix("localhost"))
    if not is_uri(place):
        return place
    address, _ = parsed(place)
    if address.user or address.password or {name for name, _ in address.options} - SHOWN:
        raise RunError(
            f"{option} {address.scheme}://...: holds credentials, and what is submitted can be read by others. Give "
            "the cluster's machines theirs in their own environment, and name the place without them; of a URI's "
            f"options {', '.join(sorted(SHOWN))} may stand there"
        )
    return place


def absolute_here(option: str, place: str) -> str:
    """A place as machines see it that share this machine's folders.

    Raises:
        RunError: the URI holds credentials.
        StoreError: nothing opens such a URI.

    """
    place = _checked(option, place)
    return place if is_uri(place) else str(Path(place).expanduser().resolve())


def absolute_there(option: str, place: str, why: str) -> str:
    """A place as other machines see it; `why` says what they cannot see, and what to name instead.

    Raises:
        RunError: it is a path relative to a folder of this machine, or a URI with credentials.
        StoreError: nothing opens such a URI.

    """
    place = _checked(option, place)
    if not is_uri(place) and not Path(place).is_absolute():
        raise RunError(f"{option} {place}: is a path within a folder of this machine, and {why}")
    return place
