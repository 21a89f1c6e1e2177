"""Where results and data may lie: paths of this machine mean nothing to another one."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import RunError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET_QUERY = re.compile(r"(secret|token|password|access_key|key_id|signature|credential)[^=&]*=", re.IGNORECASE)


def is_uri(place: str) -> bool:
    """Whether a place is a URI, as s3://bucket/prefix is, and no path."""
    return _SCHEME.match(place) is not None


def refuse_secrets(option: str, place: str) -> None:
    """A command line that is sent can be read by all who may look at a cluster's jobs.

    Raises:
        RunError: the URI holds a user, a password or a key.

    """
    if not is_uri(place):
        return
    parts = urlsplit(place)
    if "@" in parts.netloc or _SECRET_QUERY.search(parts.query):
        raise RunError(
            f"{option} {parts.scheme}://...: holds credentials, and what is submitted can be read by others. Give the "
            "cluster's machines their credentials in their own environment, and name the place without them"
        )


def absolute_here(option: str, place: str) -> str:
    """A place as machines see it that share this machine's folders.

    Raises:
        RunError: the URI holds credentials.

    """
    refuse_secrets(option, place)
    return place if is_uri(place) else str(Path(place).expanduser().resolve())


def absolute_there(option: str, place: str, why: str) -> str:
    """A place as other machines see it; `why` says what they cannot see, and what to name instead.

    Raises:
        RunError: it is a path relative to a folder of this machine, or a URI with credentials.

    """
    refuse_secrets(option, place)
    if not is_uri(place) and not Path(place).is_absolute():
        raise RunError(f"{option} {place}: is a path within a folder of this machine, and {why}")
    return place
