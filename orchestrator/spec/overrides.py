"""`--set path=value`: leaves of a study replaced from the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.errors import Fault
from orchestrator.spec.leaves import leaf_paths, sections
from orchestrator.spec.wording import LONGEST, meant, show
from orchestrator.spec.yaml_nodes import Node, parse

TOP = (
    "study", "base", "axes", "zip", "when", "exclude", "seeds", "objectives", "search", "resources", "retry",
    "artifacts",
)  # fmt: skip
_FLAT = ("axes", "when")
_NESTED = ("objectives", "search", "artifacts", "base")
_DEEP = ("resources", "retry")

LONGEST_PATH = 200
"""Characters; no leaf of a study has half as many."""


def apply(root: Node, overrides: Sequence[str], faults: list[Fault]) -> Node:
    """The tree with the overrides in it, the later winning; each fault names its override."""
    for text in overrides:
        if not _is_text(text):
            faults.append(Fault(f"{ascii(text)[:80]} is not UTF-8 text", "--set"))
            continue
        path, sign, value = text.partition("=")
        path = path.strip()
        if len(path) > LONGEST_PATH:
            faults.append(Fault(f"{show(path)} is no path of a study: it has {len(path):,} characters", "--set"))
            continue
        origin = f"--set {path}{sign}{value if len(value) <= LONGEST else f'{value[:LONGEST]}...'}"
        if not sign or not path:
            faults.append(Fault(f"{show(text)} must be path=value, as in train.epochs=3", "--set"))
            continue
        node, found = parse(value, origin)
        faults.extend(
            replace(fault, message=f"{fault.message} (from {origin})", key=path, line=0, column=0) for fault in found
        )
        if node is None:
            if not found:
                faults.append(Fault(f"no value (from {origin}); write null for none", path))
            continue
        keys = _keys(root, path, node, faults)
        if keys:
            root = _put(root, keys, node)
    return root


def _is_text(text: str) -> bool:
    """Python hands on the bytes of an argument that are no text as what nothing can write again."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keys(root: Node, path: str, node: Node, faults: list[Fault]) -> tuple[str, ...]:
    """Where in the file a path stands; empty, and a fault, where it is none."""
    head, _, rest = path.partition(".")
    if head == "base":
        head, _, rest = rest.partition(".")
    if head in sections() and path != "base":
        return _base_keys(root, f"{head}.{rest}" if rest else head, node, faults)
    if rest and head in _FLAT:
        return head, rest
    if rest and head in _NESTED:
        return (head, rest)
    if rest and head in _DEEP:
        return (head, *rest.split("."))
    if head in TOP and not rest and head not in ("base",):
        return (head,)
    known = [
        *(key for key in TOP if key != "base"),
        *sections(),
        *leaf_paths(),
        *(f"axes.{leaf}" for leaf in leaf_paths()),
    ]
    faults.append(node.fault(path, f"unknown path{meant(path, known)}"))
    return ()


def _base_keys(root: Node, path: str, node: Node, faults: list[Fault]) -> tuple[str, ...]:
    if path in _varied(root, "axes"):
        message = f"is an axis of this study; set axes.{path}=[{show(node.plain())}] instead"
        faults.append(node.fault(path, message))
        return ()
    if path in _varied(root, "zip"):
        faults.append(node.fault(path, "is an axis of this study (zip); set zip={...} instead"))
        return ()
    head, _, rest = path.partition(".")
    return ("base", head, rest) if rest else ("base", head)


def _varied(root: Node, key: str) -> set[str]:
    node = root.value.get(key) if isinstance(root.value, Mapping) else None
    groups = node.value if node is not None and isinstance(node.value, tuple) else (node,)
    return {path for group in groups if group and isinstance(group.value, Mapping) for path in group.value}


def _put(node: Node, keys: tuple[str, ...], value: Node) -> Node:
    if not keys:
        return value
    entries = dict(node.value) if isinstance(node.value, Mapping) else {}
    entries[keys[0]] = _put(entries.get(keys[0], Node(None)), keys[1:], value)
    return replace(node, value=entries)
