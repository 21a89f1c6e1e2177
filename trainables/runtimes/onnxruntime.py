"""ONNX Runtime: an ONNX graph on its CPU provider."""

import numpy as np
import onnxruntime

from trainables.runtimes.base import Images, Logits, Predictor

_ERRORS_ONLY = 3
_QUANTIZER = "WeightBiasQuantization"


def load(model: bytes, threads: int = 1) -> Predictor:
    """The ONNX `model` on `threads` threads, one image batch at a time; any batch size.

    Idle threads sleep instead of spinning, so that a network beside this one is not slowed down. What is fp32 in the
    graph stays fp32: ONNX Runtime would quantize weights of its own accord between quantized activations.
    """
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=[_QUANTIZER]
    )

    def predict(images: Images) -> Logits:
        (logits,) = session.run(["logits"], {"images": images})
        return np.asarray(logits, dtype=np.float32)

    return predict
