"""A finished network as a program of torch.export (`model.pt2`): operations and tensors, no Python of anybody's.

The file is a zip archive of JSON and of raw numbers. torch's own reader would do more than read it: it unpickles what
the archive declares as pickled, and evaluates shape expressions. So what is written here holds neither example inputs
(the one thing that torch pickles of a plain network) nor names of source files, and what is read is checked first.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainables.errors import BundleError, ExportError

_NAMES = re.compile(
    r"archive/(data/weights/(weight_\d+|model_weights_config\.json)|models/model\.json|byteorder"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|archive_(format|version)|\.data/\w+"
    r"|data/sample_inputs/model\.pt)"
)
_EXAMPLES, _GRAPH = "archive/data/sample_inputs/model.pt", "archive/models/model.json"
_SYMBOL = re.compile(r"Symbol\('\w+'(, (positive|integer)=True)*\)")
_ARITHMETIC = re.compile(r"[\d\s+()/-]*(\*[\d\s+()/-]+)*\*?[\d\s+()/-]*")
_OPERATION = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.\w+")
_TREES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})


@torch.no_grad()
def to_program(model: nn.Module, example: Tensor) -> bytes:
    """The program of a network in eval mode: normalised images (N, C, H, W), any N, to logits (N, classes).

    Args:
        model: the network, on the CPU.
        example: an image, shape (1, C, H, W); only its shape counts.

    Raises:
        ExportError: torch cannot trace it into one program.

    """
    # of one image the tracer would conclude that there is never another number of them
    images = torch.zeros(2, *example.shape[1:])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch raises its own classes, user errors and plain ones alike
        msg = f"torch cannot export {type(model).__name__} as a program: {str(error).strip().splitlines()[0]}"
        raise ExportError(msg) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program._example_inputs = None  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    written = io.BytesIO()
    torch.export.save(program, written)
    return written.getvalue()


def from_program(data: bytes) -> Callable[[Tensor], Tensor]:
    """The function that a file of `to_program` holds.

    Raises:
        BundleError: no such file, or one that holds anything beside tensors and torch's own operations.

    """
    _refuse_code(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(io.BytesIO(data)).module(check_guards=False)
    except Exception as error:
        msg = f"torch cannot read the program: {str(error).strip().splitlines()[0]}"
        raise BundleError(msg) from error
    return cast("Callable[[Tensor], Tensor]", module)


def _refuse_code(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            configs = [json.loads(archive.read(name)) for name in names if name.endswith("_config.json")]
            graph = json.loads(archive.read(_GRAPH))
            examples = archive.getinfo(_EXAMPLES).file_size
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
        msg = f"not a program of torch.export: {error}"
        raise BundleError(msg) from error
    odd = [name for name in names if not _NAMES.fullmatch(name)]
    pickled = examples > 0 or any(value is not False for config in configs for value in _values(config, "use_pickle"))
    reason = f"the entry {odd[0]}" if odd else "pickled objects" if pickled or len(set(names)) < len(names) else ""
    if reason := reason or _odd_part(graph):
        msg = f"the program holds {reason}, which could run code when it is loaded; export the trial again"
        raise BundleError(msg)


def _odd_part(graph: Any) -> str:
    """What in the JSON of a program could run code, in words; empty if nothing."""
    for text in _values(graph, "expr_str"):
        if not _ARITHMETIC.fullmatch(_SYMBOL.sub("", str(text))):
            return f"the shape {text!r}"
    for nodes in _values(graph, "nodes"):
        for node in nodes:
            if not _OPERATION.fullmatch(str(node.get("target"))):
                return f"the operation {node.get('target')!r}"
    for name in ("in_spec", "out_spec"):
        for spec in filter(None, _values(graph, name)):
            if not _TREES.issuperset(_values(json.loads(spec), "type")):
                return "inputs or outputs that are no tensors"
    return "guards" if any(_values(graph, "guards_code")) else ""


def _values(tree: Any, key: str) -> Iterator[Any]:
    """Every value under `key`, at any depth."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from _values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _values(value, key)
