"""The model card of an exported folder, `README.md`."""

from collections.abc import Callable, Iterator, Mapping

from trainables.export.facts import Check, Facts, Format, Values

_NEEDS: Mapping[Format, str] = {
    "packed": "this package, `pip install sweep-orchestrator`",
    "onnx": "numpy, pillow and onnxruntime",
    "torch": "torch, numpy and pillow",
}
_FILE: Mapping[Format, str] = {
    "packed": "The packed file: few-bit weights at their few bits, BN folded; what a device would store. Reading it "
    "runs no code, unless the network is the user's own.",
    "onnx": "An ONNX graph: input `images`, output `logits`.",
    "torch": "A program of `torch.export`: operations and tensors. It was written without anything pickled; "
    "`torch.export.load` itself would run what a file of somebody else's pickles or hides in its shapes, so load it "
    "only where its SHA-256 is the one below. `orchestrator predict` refuses such content.",
}


def card(facts: Facts) -> str:
    """The text; every number in it was measured, and what was not is left out."""
    return "\n".join(line for part in (_head, _use, _input, _measured, _checks, _config, _file) for line in part(facts))


def _head(facts: Facts) -> Iterator[str]:
    config = facts.config
    method = config.get("compress.method", "not compressed")
    yield f"# {config['model.name']} for {config['data.name']}, {method}"
    yield ""
    yield f"Trial `{facts.trial_id}` of study `{facts.study}`, exported as `{facts.format}` ({facts.bytes:,} bytes)."
    yield _FILE[facts.format]
    if facts.int8:
        yield "Convolutions and linear layers run in int8 (QDQ); the steps of activations were set on training images."
    yield ""


def _use(facts: Facts) -> Iterator[str]:
    yield "## Use"
    yield ""
    own = _own_module(facts)
    allow = " --allow-code" if own and facts.format == "packed" else ""
    yield f"    python predict.py image.png{allow}        # needs {_NEEDS[facts.format]}"
    yield f"    orchestrator predict . image.png{allow}   # from this folder; see its --help"
    yield ""
    yield "Both print path, class, name and probability; the second takes folders and arrays too."
    if allow:
        yield f"The network is built by code: the module `{own}`, unchanged since it was trained, must lie beside"
        yield "`predict.py` or on Python's path. Exported as `onnx` or `torch` it needs no code."
    elif own:
        yield f"The file holds the whole network: the module `{own}` that built it is not needed."
    yield ""


def _own_module(facts: Facts) -> str:
    """The top-level module of a network of the user's own code, `package.module:function`; empty if it is none."""
    module, sign, _ = str(facts.config["model.name"]).partition(":")
    return module.partition(".")[0] if sign else ""


def _input(facts: Facts) -> Iterator[str]:
    wanted = facts.input
    mean, std = (", ".join(f"{value:.7g}" for value in values) for values in (wanted.mean, wanted.std))
    size, colours = wanted.image_size, {1: "grey", 3: "RGB"}.get(wanted.channels, f"{wanted.channels} channels")
    yield "## Input and output"
    yield ""
    yield f"- Images of {size} x {size} pixels, {colours}: fp32 (N, {wanted.channels}, {size}, {size}), any N."
    yield f"- Pixels are scaled to [0, 1] and normalised as (pixel - mean) / std; mean {mean}; std {std}."
    yield f"- Logits of {facts.classes} classes, (N, {facts.classes}); softmax makes them probabilities."
    if facts.class_names:
        yield f"- Classes, from 0: {', '.join(facts.class_names)}."
    yield ""


def _measured(facts: Facts) -> Iterator[str]:
    yield "## Measured"
    yield ""
    where = f"the test images of `{facts.config['data.name']}`"
    yield f"Accuracy is that of the network read back from its packed file, on {where}."
    yield ""
    yield "| what | value |"
    yield "| --- | --- |"
    for name, told in _ROWS.items():
        if name in facts.measured:
            yield f"| {name} | {told(facts.measured)} |"
    yield ""


def _percent(name: str) -> Callable[[Values], str]:
    return lambda values: f"{100 * float(values[name]):.2f} %"


def _points(name: str, baseline: str) -> Callable[[Values], str]:
    return lambda values: f"{100 * float(values[name]):.2f} points below {baseline}"


def _count(name: str, unit: str = "") -> Callable[[Values], str]:
    return lambda values: f"{values[name]:,}{unit}"


def _ratio(name: str, unit: str) -> Callable[[Values], str]:
    return lambda values: f"{float(values[name]):.4g}{unit}"


def _accuracy(values: Values) -> str:
    told = _percent("accuracy")(values)
    if "accuracy_low" not in values or "accuracy_high" not in values:
        return told
    low, high = (100 * float(values[name]) for name in ("accuracy_low", "accuracy_high"))
    return f"{told} (95 % interval {low:.2f} to {high:.2f} %, {values.get('test_images', '?')} test images)"


def _latency(values: Values) -> str:
    where = f"{values.get('runtime', '?')}, batch {values.get('latency_batch', '?')}"
    return f"{float(values['latency_ms']):.4g} ms, {where}, on {values.get('latency_machine', '?')}"


_ROWS: Mapping[str, Callable[[Values], str]] = {
    "accuracy": _accuracy,
    "val_accuracy": _percent("val_accuracy"),
    "dense_accuracy": _percent("dense_accuracy"),
    "dense_finetuned_accuracy": _percent("dense_finetuned_accuracy"),
    "binary_accuracy": _percent("binary_accuracy"),
    "accuracy_drop": _points("accuracy_drop", "the fp32 network trained on with the same schedule"),
    "binary_accuracy_drop": _points("binary_accuracy_drop", "the same bits with nothing pruned"),
    "packed_bytes": _count("packed_bytes", " bytes"),
    "compression": _ratio("compression", "x: dense fp32 bytes / the whole packed file"),
    "payload_compression": _ratio("payload_compression", "x: the same for weights alone"),
    "bits_per_weight": _ratio("bits_per_weight", " bits"),
    "params": _count("params"),
    "macs": _count("macs", " multiply-accumulates for one image"),
    "bops": _count("bops", " bit operations for one image"),
    "latency_ms": _latency,
    "latency_ratio": _ratio("latency_ratio", "x: the dense network in OpenVINO fp32 / this"),
}


def _checks(facts: Facts) -> Iterator[str]:
    yield "## Checked"
    yield ""
    yield "The file as it lies here was loaded again and compared with the network that the trial left:"
    yield ""
    yield "| runtime | test images | same class | largest difference of a logit | own accuracy on them |"
    yield "| --- | --- | --- | --- | --- |"
    yield from map(_check, facts.checks)
    yield ""


def _check(one: Check) -> str:
    shares = f"{100 * one.agreement:.2f} % | {one.max_difference:.3g} | {100 * one.accuracy:.2f} %"
    return f"| {one.runtime} | {one.images} | {shares} |"


def _config(facts: Facts) -> Iterator[str]:
    yield "## Config"
    yield ""
    yield "| leaf | value |"
    yield "| --- | --- |"
    for name, value in facts.config.items():
        yield f"| {name} | {value} |"
    yield ""


def _file(facts: Facts) -> Iterator[str]:
    yield "## File"
    yield ""
    yield f"- `{facts.file}`, {facts.bytes:,} bytes, SHA-256 `{facts.sha256}`"
    yield f"- made from the packed file with SHA-256 `{facts.artifact_sha256}`"
    yield f"- versions: {', '.join(f'{name} {number}' for name, number in sorted(facts.versions.items()))}"
    yield ""
