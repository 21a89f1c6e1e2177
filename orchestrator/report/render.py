"""The payload and the page's files -> one HTML file that needs no network and runs no code but its own."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError

SCRIPTS = ("words.js", "charts.js", "fronts.js", "sections.js", "trial.js", "table.js", "main.js")
"""In the order in which they run, as one."""

MARK = '<meta name="generator" content="orchestrator report">'
"""Tells a report from a file that must not be written over."""


def page(payload: Mapping[str, Any], *, live: str = "") -> str:
    """The whole page.

    Names, questions, errors and values are data in it, inside a JSON block that cannot be left: the script writes them
    as text. A policy in the head lets the browser run the two scripts of this file, known by their SHA-256, and no
    others.

    Args:
        payload: what `report.data.payload` gives.
        live: version of the tables, where a server answers for newer ones; the page then asks it.

    Raises:
        OrchestratorError: plotly is not installed.

    """
    library, script = plotly(), own_script()
    asks = "'self'" if live else "'none'"
    policy = (
        f"default-src 'none'; script-src {_hash(library)} {_hash(script)}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; connect-src {asks}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "MARK": MARK,
        "POLICY": policy,
        "STYLE": _own("style.css"),
        "DATA": in_script({**payload, "rows": packed(payload["rows"]), "live": live}),
        "LIBRARY": library,
        "SCRIPT": script,
    }
    # One pass over the template alone: a part is never searched for the names of others.
    return re.sub(r"<!--([A-Z]+)-->", lambda found: parts[found[1]], _own("page.html"))


def packed(value: object) -> str:
    """JSON, compressed with gzip, in Base64: half the size for a table of thousands of rows."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def in_script(value: object) -> str:
    """JSON that can stand inside a script element: no character in it begins a tag, a comment or an entity."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def plotly() -> str:
    """plotly.js, as the Python package carries it.

    Raises:
        OrchestratorError: plotly is not installed.

    """
    found = find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise OrchestratorError(
            "plotly is not installed; the report draws with its script library: "
            "pip install 'sweep-orchestrator[plot]', or pip install plotly"
        )
    path = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return _embeddable(path.read_text(encoding="utf-8"))


def own_script() -> str:
    """The page's own script."""
    return _embeddable("".join(['"use strict";\n', *map(_own, SCRIPTS)]))


def _own(name: str) -> str:
    return files("orchestrator.report").joinpath("page", name).read_text(encoding="utf-8")


def _embeddable(script: str) -> str:
    """A script as a browser will hash it, which no text inside can end."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
