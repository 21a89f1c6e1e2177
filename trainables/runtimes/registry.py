"""From the name of a runtime to a network that runs in it."""

from collections.abc import Callable

from torch import Tensor

from trainables.config import Runtime
from trainables.errors import InfeasibleError
from trainables.models.compact import Compact
from trainables.runtimes.base import Predictor
from trainables.runtimes.extra import deploy_extra


def open_network(runtime: Runtime, network: Compact, calibration: Tensor, threads: int) -> Predictor:
    """`network` loaded into `runtime` on `threads` threads.

    OpenVINO and ONNX Runtime get the int8 graph where any layer has few bits, else the fp32 graph; the packed runtime
    runs networks whose inputs of layers are quantized too; the skipping one computes, image by image, what gates leave
    on, and networks without gates as they are.

    Args:
        runtime: its name.
        network: a finished network.
        calibration: normalised training images, (N, C, H, W); they set the steps of int8 activations.
        threads: of the runtime.

    Raises:
        InfeasibleError: the runtime cannot run such a network.
        MissingExtraError: its packages are not installed.

    """
    with deploy_extra():
        return LOADERS[runtime](network, calibration, threads)


def onnx_graph(network: Compact, calibration: Tensor) -> bytes:
    """The graph that `open_network` gives OpenVINO and ONNX Runtime."""
    with deploy_extra():
        from trainables.export.onnx import to_onnx

        return to_onnx(network, calibration[:1], calibration if has_int8_graph(network) else None)


def has_int8_graph(network: Compact) -> bool:
    """Whether `onnx_graph` is int8: where any layer has few bits."""
    return bool(network.bits)


def rounds_to_int8(network: Compact) -> bool:
    """Whether `onnx_graph` rounds activations that the network itself leaves in fp32.

    Beside activations of one or two bits an int8 graph rounds nothing more (`trainables.export.qdq`).
    """
    return has_int8_graph(network) and not network.has_few_bit_activations


def _openvino(network: Compact, calibration: Tensor, threads: int) -> Predictor:
    from trainables.runtimes.openvino import load

    return load(onnx_graph(network, calibration), threads)


def _onnxruntime(network: Compact, calibration: Tensor, threads: int) -> Predictor:
    from trainables.runtimes.onnxruntime import load

    return load(onnx_graph(network, calibration), threads)


def _packed(network: Compact, calibration: Tensor, threads: int) -> Predictor:
    if not network.bits:
        msg = "the packed runtime runs layers of 1 or 2 bits, and this network has none; use openvino or onnxruntime"
        raise InfeasibleError(msg)
    from trainables.runtimes.packed import load

    channels, height, width = calibration.shape[1:]
    return load(network, (channels, height, width), threads)


def _skipping(network: Compact, calibration: Tensor, threads: int) -> Predictor:
    from trainables.runtimes.skipping import load

    return load(network, threads)


LOADERS: dict[Runtime, Callable[[Compact, Tensor, int], Predictor]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "packed": _packed,
    "skipping": _skipping,
}
