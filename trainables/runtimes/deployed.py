"""An exported network in use: from a folder or a model file to classes of images, without any training code."""

import hashlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from trainables.data.pictures import Pictures, Pixels
from trainables.errors import BundleError, InfeasibleError, MissingExtraError, PackedFileError
from trainables.export.bundle import FACTS, read_facts, read_model
from trainables.export.facts import Facts, Format, Input
from trainables.runtimes.base import Images, Logits, Predictor
from trainables.runtimes.extra import deploy_extra

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.models.compact import Compact

Engine = Literal["packed", "openvino", "onnxruntime", "torch"]
Choice = Literal["auto", "packed", "openvino", "onnxruntime", "torch"]

ENGINES: Mapping[Format, tuple[Engine, ...]] = {
    "packed": ("packed", "torch", "openvino", "onnxruntime"),
    "onnx": ("onnxruntime", "openvino"),
    "torch": ("torch",),
}
"""What can run a file of each format; `auto` takes the first that does."""

AT_ONCE = 64
"""Images per call."""

_PACKED_MAGIC = b"PKNN"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A network loaded into a runtime, with what it takes and what its classes are called."""

    input: Input
    classes: int
    class_names: tuple[str, ...]
    engine: Engine
    predictor: Predictor

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.input.channels

    @property
    def image_size(self) -> int:
        """Pixels a side of the images."""
        return self.input.image_size

    def logits(self, pixels: Pixels) -> Logits:
        """Logits (N, classes) of uint8 images (N, C, size, size).

        Raises:
            BundleError: the network takes other images, or has another number of classes, than is said of it.

        """
        parts = [self._run(self._normalised(pixels[start : start + AT_ONCE])) for start in _starts(len(pixels))]
        return np.concatenate(parts) if parts else np.empty((0, self.classes), np.float32)

    def _run(self, images: Images) -> Logits:
        told = f"the network does not take images {images.shape[1:]} to {self.classes} classes, as is said of it"
        try:
            found = self.predictor(images)
        except MemoryError:
            raise
        except Exception as error:  # each runtime has errors of its own
            msg = f"{told}: {' '.join(str(error).split())[:200]}"
            raise BundleError(msg) from error
        if found.shape != (len(images), self.classes):
            msg = f"{told}: it gives logits {found.shape[1:]}"
            raise BundleError(msg)
        return found

    def _normalised(self, pixels: Pixels) -> Images:
        # in the very operations of trainables.data.load.normalise, so that no rounding differs from training
        mean, std = (np.array(values, np.float32) for values in (self.input.mean, self.input.std))
        scale = (np.float32(1) / (np.float32(255) * std))[:, None, None]
        return np.ascontiguousarray(pixels * scale - (mean / std)[:, None, None], np.float32)


def _starts(images: int) -> range:
    return range(0, images, AT_ONCE)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class of an image; `rank` 1 is the most probable."""

    path: str
    rank: int
    label: int
    name: str
    probability: float


def classify(model: Deployed, pictures: Pictures, top: int = 1) -> list[Prediction]:
    """The `top` most probable classes of each image, best first; equal ones in the order of their labels."""
    shares = probabilities(model.logits(pictures.pixels))
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return [
        Prediction(path, rank, int(label), model.class_names[label], float(row[label]))
        for path, row, labels in zip(pictures.names, shares, order, strict=True)
        for rank, label in enumerate(labels, 1)
    ]


def probabilities(logits: Logits) -> NDArray[np.float64]:
    """Softmax of (N, classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def open_model(path: Path, engine: Choice = "auto", threads: int = 1, *, allow_code: bool = False) -> Deployed:
    """An exported network, ready to run.

    Args:
        path: an exported folder, a model file in one, or a packed file wherever it lies.
        engine: what runs it; `auto` is the first of `ENGINES` that can.
        threads: of the runtime.
        allow_code: whether a packed network of the user's own code may be imported and built.

    Raises:
        BundleError: nothing there that was exported, or not what was written.
        PackedFileError: a packed file is truncated, changed or of a later version.
        InfeasibleError: that runtime cannot run such a file or such a network.
        MissingExtraError: its packages are not installed.
        CodeError: the network is a user's own code, and that is not allowed or not at hand as it was.

    """
    facts, data = _found(path)
    form: Format = facts.format if facts else "packed"
    _refuse_engine(path, form, engine)
    if form == "packed":
        return _open_packed(data, facts, engine, threads, allow_code)
    if facts is None:
        msg = f"{path}: no packed file, and without {FACTS}"
        raise BundleError(msg)
    if form == "torch":
        return _deployed(facts, "torch", _program(data, threads))
    return _open_onnx(data, facts, engine, threads)


def _found(path: Path) -> tuple[Facts | None, bytes]:
    """The facts of an export and its model file; a packed file may have no facts."""
    if path.is_dir():
        facts = read_facts(path)
        return facts, read_model(path, facts)
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise BundleError(msg) from error
    if data.startswith(_PACKED_MAGIC) or path.suffix == ".packed":
        with suppress(BundleError):
            facts = read_facts(path.parent)
            if facts.format == "packed" and facts.sha256 == hashlib.sha256(data).hexdigest():
                return facts, data
        return None, data
    if not (path.parent / FACTS).is_file():
        msg = f"{path}: neither a packed file nor one of an exported folder, where {FACTS} lies beside it"
        raise BundleError(msg)
    facts = read_facts(path.parent)
    if facts.file != path.name:
        msg = f"{path}: the {FACTS} beside it is of {facts.file}, not of this file"
        raise BundleError(msg)
    return facts, read_model(path.parent, facts)


def _refuse_engine(path: Path, form: Format, engine: Choice) -> None:
    if engine != "auto" and engine not in ENGINES[form]:
        msg = (
            f"{path}: runtime {engine} does not run a file of format {form}; choose {', '.join(ENGINES[form])} or auto"
        )
        raise InfeasibleError(msg)


def _deployed(facts: Facts, engine: Engine, predictor: Predictor) -> Deployed:
    return Deployed(facts.input, facts.classes, _names(facts.class_names, facts.classes), engine, predictor)


def _names(names: tuple[str, ...] | None, classes: int) -> tuple[str, ...]:
    """One a class; the numbers where there are none."""
    return names if names and len(names) == classes else tuple(map(str, range(classes)))


def _open_packed(data: bytes, facts: Facts | None, engine: Choice, threads: int, allow_code: bool) -> Deployed:
    from trainables.export.packed import unpack

    network, header = unpack(data, allow_code)
    try:
        wanted = Input(channels=header.channels, image_size=header.image_size, mean=header.mean, std=header.std)
    except ValidationError as error:
        msg = f"the packed file is damaged: {error.errors()[0]['msg']} (deviations {header.std})"
        raise PackedFileError(msg) from error
    names = _names(facts.class_names if facts else None, header.classes)
    shape = (header.channels, header.image_size, header.image_size)
    openers: dict[Engine, Callable[[], Predictor]] = {
        name: partial(opener, network, shape, threads) for name, opener in _PACKED_IN.items()
    }
    taken, predictor = _first(openers, engine)
    return Deployed(wanted, header.classes, names, taken, predictor)


def _open_onnx(data: bytes, facts: Facts, engine: Choice, threads: int) -> Deployed:
    openers: dict[Engine, Callable[[], Predictor]] = {
        "onnxruntime": lambda: _onnxruntime(data, threads),
        "openvino": lambda: _openvino(data, threads),
    }
    taken, predictor = _first(openers, engine)
    return _deployed(facts, taken, predictor)


def _first(openers: Mapping[Engine, Callable[[], Predictor]], engine: Choice) -> tuple[Engine, Predictor]:
    """The engine asked for, or the first that can run the network here."""
    if engine != "auto":
        return engine, openers[engine]()
    *others, last = openers
    for name in others:
        with suppress(InfeasibleError, MissingExtraError):
            return name, openers[name]()
    return last, openers[last]()


def _onnxruntime(graph: bytes, threads: int) -> Predictor:
    with deploy_extra():
        from trainables.runtimes.onnxruntime import load
    with _loading("ONNX Runtime"):
        return load(graph, threads)


def _openvino(graph: bytes, threads: int) -> Predictor:
    with deploy_extra(), _loading("OpenVINO"):
        from trainables.runtimes.openvino import load

        return load(graph, threads)


@contextmanager
def _loading(engine: str) -> Generator[None]:
    """What is no graph, or not one for this release of a runtime, is told in a line; each has errors of its own."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        msg = f"{engine} cannot load this model: {' '.join(str(error).split())[:200]}"
        raise BundleError(msg) from error


def _program(data: bytes, threads: int) -> Predictor:
    from trainables.export.program import from_program

    return _of_torch(from_program(data), threads)


def _packed_kernels(network: "Compact", shape: tuple[int, int, int], threads: int) -> Predictor:
    if not network.has_few_bit_activations:  # asked first, as importing the kernels takes its time
        msg = "the packed runtime runs networks with activations of 1 or 2 bits, and this one has none; use torch"
        raise InfeasibleError(msg)
    with deploy_extra():
        from trainables.runtimes.packed import load
    return load(network, shape, threads)


def _packed_torch(network: "Compact", shape: tuple[int, int, int], threads: int) -> Predictor:
    return _of_torch(network.model.eval(), threads)


def _of_torch(network: "Callable[[Tensor], Tensor]", threads: int) -> Predictor:
    import torch

    torch.set_num_threads(threads)

    def predict(images: Images) -> Logits:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return predict


def _packed_onnx(network: "Compact", shape: tuple[int, int, int]) -> bytes:
    """The fp32 graph, which is exact: without training images no int8 step can be set."""
    import torch

    with deploy_extra():
        from trainables.export.onnx import to_onnx

        return to_onnx(network, torch.zeros(1, *shape), None)


_PACKED_IN: Mapping[Engine, Callable[["Compact", tuple[int, int, int], int], Predictor]] = {
    "packed": _packed_kernels,
    "torch": _packed_torch,
    "openvino": lambda network, shape, threads: _openvino(_packed_onnx(network, shape), threads),
    "onnxruntime": lambda network, shape, threads: _onnxruntime(_packed_onnx(network, shape), threads),
}
