"""OpenVINO: an ONNX graph compiled for the CPU, in fp32 where the graph is fp32."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from trainables.runtimes.base import Images, Logits, Predictor

_TELEMETRY = "openvino_telemetry"

SHAPES_KEPT = 4


def load(model: bytes, threads: int = 1) -> Predictor:
    """The ONNX `model` on `threads` threads, one image batch at a time; any batch size.

    It is compiled for each batch size on first use, for one image at once: a graph of open batch size runs slower, by
    some percent in fp32 and a tenth in int8. The last `SHAPES_KEPT` batch sizes are kept.

    `f32` keeps OpenVINO from computing fp32 graphs in bf16, which it does unasked on CPUs that have it.
    """
    with _without_telemetry():
        import openvino
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    graph = core.read_model(model=model, weights=b"")

    @lru_cache(SHAPES_KEPT)
    def request(images: int) -> openvino.InferRequest:
        shape = graph.input(0).partial_shape
        shape[0] = images
        graph.reshape(shape)
        return core.compile_model(graph, "CPU", settings).create_infer_request()

    def predict(images: Images) -> Logits:
        taken = request(len(images))
        # what `InferRequest.infer` ends in, without the 30 us in which it looks for other kinds of input
        infer = super(openvino.InferRequest, taken).infer
        infer(openvino.Tensor(images, shared_memory=True), True, False)  # pyright: ignore[reportCallIssue]
        return np.array(taken.get_output_tensor().data, dtype=np.float32)

    request(1)
    return predict


@contextmanager
def _without_telemetry() -> Generator[None]:
    """While openvino is imported its reporter cannot be: else it sends a message on import, unless run in a CI."""
    absent = object()
    before = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType] - Python's way to refuse an import
    try:
        yield
    finally:
        if before is absent:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before  # pyright: ignore[reportArgumentType]
