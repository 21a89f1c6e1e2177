"""The range of every tensor of an ONNX graph over some images."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

BATCH = 32
_ERRORS_ONLY = 3


def ranges(
    model: onnx.ModelProto, tensors: Sequence[str], images: NDArray[np.float32]
) -> dict[str, tuple[float, float]]:
    """(smallest, largest) value of each of `tensors` when `model` runs on `images` (N, C, H, W), N >= 1.

    The whole range, nothing clipped: on digits the logits of ResNet-8 moved less under it than with percentiles of
    99.999, 99.99 or 99.9, and no more than with the clip of least squared error.
    """
    (given,) = (one.name for one in model.graph.input)
    asked = [name for name in tensors if name != given]
    session = _session(model, asked)
    found = dict.fromkeys(tensors, (np.inf, -np.inf))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        values = dict(zip(asked, session.run(asked, {given: batch}) if asked else (), strict=True)) | {given: batch}
        for name, (low, high) in found.items():
            value = np.asarray(values[name])
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def _session(model: onnx.ModelProto, outputs: Sequence[str]) -> onnxruntime.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {one.name for one in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
