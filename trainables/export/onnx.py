"""ONNX: the graph that OpenVINO and ONNX Runtime run, in fp32 or in int8."""

import copy
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import torch
import torch.onnx.ops
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.errors import ExportError
from trainables.export.folding import fold_batch_norms
from trainables.export.qdq import to_int8
from trainables.models.compact import Compact
from trainables.quantize import Activation, replace_module

INPUT = "images"
OUTPUT = "logits"
OPSET = 20


def to_onnx(network: Compact, example: Tensor, calibration: Tensor | None) -> bytes:
    """The ONNX file of a finished network: input `images` (N, C, H, W), normalised; output `logits` (N, classes).

    Any N. BN is folded where a convolution comes before it. With `calibration` convolutions and linear layers are int8,
    those that compression left in full precision too: in OpenVINO ResNet-18 is faster so. Beside activations of one or
    two bits only the layers that read them are. `trainables.export.qdq` says what is exact in it.

    Args:
        network: a finished network.
        example: an image, shape (1, C, H, W); only its shape counts.
        calibration: normalised training images, (N, C, H, W), that set the steps of int8; None: an fp32 graph.

    Raises:
        InfeasibleError: the model's graph cannot be traced.
        ExportError: torch cannot write it as ONNX.

    """
    # training leaves layers in channels_last, which the exporter would write as shape arithmetic around the pooling
    model = copy.deepcopy(network.model).cpu().to(memory_format=torch.contiguous_format).eval()
    fold_batch_norms(model)
    for name, activation in network.activations.items():
        replace_module(model, name, _lowered(activation, int8=calibration is not None))
    written = _without_remarks(_exported(model, example.shape[1:]))
    if calibration is not None:
        images = np.ascontiguousarray(calibration.detach().cpu().numpy(), dtype=np.float32)
        written = to_int8(written, images, exact=network.has_few_bit_activations, grids=_steps(network))
    return written.SerializeToString(deterministic=True)


def _steps(network: Compact) -> dict[str, NDArray[np.float32]]:
    """The steps of weights on grids, (O,) each, by the name that torch gives the constant."""
    filters = {name: network.model.get_submodule(name).get_parameter("weight").shape[0] for name in network.grids}
    return {
        f"{name}.weight": grid.per_filter(filters[name])[0].flatten().numpy() for name, grid in network.grids.items()
    }


class _Rounded(nn.Module):
    """A QuantizeLinear and a DequantizeLinear: step x round(x / step), half to even as in torch, clamped to `dtype`."""

    def __init__(self, step: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(step))
        self.register_buffer("zero", torch.tensor(0, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Multiples of the step; any shape."""
        scale, zero = self.get_buffer("step"), self.get_buffer("zero")
        levels = torch.onnx.ops.symbolic("QuantizeLinear", (x, scale, zero), dtype=zero.dtype, shape=x.shape)
        return torch.onnx.ops.symbolic("DequantizeLinear", (levels, scale, zero), dtype=torch.float32, shape=x.shape)


class _Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """-1 or +1."""
        return torch.where(x >= 0, 1.0, -1.0)


class _Ternary(nn.Module):
    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """-1, 0 or +1."""
        return torch.where(x >= self.threshold, 1.0, torch.where(x <= -self.threshold, -1.0, 0.0))


def _lowered(activation: Activation, int8: bool) -> nn.Module:
    """The module that computes `activation` in operators of ONNX; in an int8 graph its -1, 0 and +1 are integers."""
    if activation.kind not in ("sign", "ternary"):
        if activation.value == 0:
            return nn.ReLU()
        rounded = _Rounded(activation.value, torch.uint8)
        top = activation.value * (2**activation.bits - 1)
        return rounded if activation.bits == 8 else nn.Sequential(nn.Hardtanh(0.0, top), rounded)
    chosen = _Sign() if activation.kind == "sign" else _Ternary(activation.value)
    return nn.Sequential(chosen, _Rounded(1.0, torch.int8)) if int8 else chosen


def _exported(model: nn.Module, shape: Sequence[int]) -> onnx.ModelProto:
    """The graph of `model` for images of `shape` (C, H, W)."""
    batch = torch.export.Dim("batch")
    # of one image the tracer would conclude that there is never another number of them
    images = torch.zeros(2, *shape)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model, (images,), dynamo=True, verbose=False, opset_version=OPSET,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=({0: batch},),
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        msg = f"torch cannot write {type(model).__name__} as ONNX: {str(error.__cause__ or error).splitlines()[0]}"
        raise ExportError(msg) from error
    if program is None:
        msg = f"torch gave no ONNX graph of {type(model).__name__}"
        raise ExportError(msg)
    return program.model_proto


@contextmanager
def _quiet() -> Generator[None]:
    """Without what torch's exporter has to say of its own parts; it says it in log lines and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _without_remarks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without names of source files, which torch notes at every node."""
    remarked: Sequence[object] = (
        model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info,
        *model.graph.input, *model.graph.output,
    )  # fmt: skip
    for part in remarked:
        part.ClearField("metadata_props")  # pyright: ignore[reportAttributeAccessIssue]
        part.ClearField("doc_string")  # pyright: ignore[reportAttributeAccessIssue]
    return model
