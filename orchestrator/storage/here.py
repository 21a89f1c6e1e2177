"""Where this machine keeps what belongs to a results root or data sets elsewhere."""

import getpass
import hashlib
import os
import socket
import tempfile
from pathlib import Path

from orchestrator.storage.remote import RemotePath


def state_folder() -> Path:
    """What must survive a kill: below `$XDG_STATE_HOME`, else `~/.local/state`."""
    return _below("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """What can be fetched again: below `$XDG_CACHE_HOME`, else `~/.cache`."""
    return _below("XDG_CACHE_HOME", ".cache")


def spool_folder(target: RemotePath) -> Path:
    """Where lines wait that are on their way to `target`; machines that share a home have folders of their own."""
    return state_folder() / "spool" / socket.gethostname() / fingerprint(target)


def of_root(root: Path | RemotePath) -> Path:
    """Where a run keeps the files of its own that are no results: in the root, or where that is elsewhere, here."""
    return cache_folder() / "runs" / fingerprint(root) if isinstance(root, RemotePath) else root / ".store"


def fingerprint(path: RemotePath) -> str:
    """A name for a place elsewhere; equal for all who may open it, whatever their keys."""
    options = [option for option in path.address.options if option[0] == "endpoint_override"]
    return hashlib.sha256(f"{path.address.scheme}://{path.address.place}/{path.path} {options}".encode()).hexdigest()[
        :16
    ]


def _below(variable: str, usual: str) -> Path:
    given = os.environ.get(variable)
    if given:
        return Path(given) / "orchestrator"
    try:
        return Path.home() / usual / "orchestrator"
    except RuntimeError:  # a process without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"orchestrator-{getpass.getuser()}"
