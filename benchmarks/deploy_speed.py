"""What exported networks gain on this CPU: one table, batch 1, one thread, medians of calls in one process.

    uv run python benchmarks/deploy_speed.py [--rounds 200] [--cpu]

Weights, BN statistics and images are random: the table is about speed, and no network in it has learnt anything. The
layer is a 3x3 convolution of binary weights and inputs, end to end: fp32 maps in, packing, sums, scale and bias, fp32
maps out, against torch's fp32 convolution in the faster of both memory formats. Dense networks are ResNets of standard
blocks; int8 means the ONNX export of this project. PFR 0.4 of 64 ... 512 filters leaves multiples of 16: 48, 80, 160,
320 rounded up, 32, 80, 160, 304 to the nearest. The times of compilation are of fresh processes and hold the import of
the compiler's parts, not of numba.

Networks and layers take turns as in the latency pass of a sweep. On a machine that does other work, long runs are
interrupted more often than short ones, and the ratios of wall times flatter the packed runtime; `--cpu` compares CPU
times, of all threads, which suffer less.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.export.onnx import to_onnx
from trainables.kernels import rows
from trainables.kernels.convolutions import Geometry, Next, ToFloats, bit_convolution
from trainables.kernels.layout import vectors_of
from trainables.kernels.maps import Bits, Floats, place, prepare
from trainables.kernels.target import level
from trainables.measure.latency import time_interleaved
from trainables.models.build import initialise
from trainables.models.compact import Compact
from trainables.models.resnet import BLOCKS, ResNet, final_norm
from trainables.pruning.ramp import Rounding, kept_channels
from trainables.quantize import Activation, binarize, install_activations, ternarize
from trainables.runtimes import onnxruntime, openvino, packed
from trainables.runtimes.base import Images, Logits, Predictor

SHAPE = (3, 32, 32)
DENSE = (64, 128, 256, 512)
UP, NEAREST = (tuple(kept_channels(width, 0.4, Rounding(16, to)) for width in DENSE) for to in ("up", "nearest"))
LAYERS = ((128, 16), (256, 8), (512, 4))
COMPILE = """
import numba, time
start = time.perf_counter(), time.process_time()
from trainables.kernels.program import program
program()
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a ratio of two medians and what it should be."""

    what: str
    ours: str
    theirs: str
    goal: float
    stretch: float


def resnet(block: str, widths: Sequence[int], depth: int) -> nn.Module:
    """A ResNet for 32x32 images with so many filters in each stage, random weights and BN statistics."""
    source = torch.Generator().manual_seed(0)
    model = ResNet(3, 10, widths[0], (depth,) * len(widths), "cifar", block)
    inputs, stages = widths[0], list[nn.Module]()
    for index, outputs in enumerate(widths):
        first = BLOCKS[block](inputs, outputs, 1 if index == 0 else 2)
        stages.append(nn.Sequential(first, *(BLOCKS[block](outputs, outputs, 1) for _ in range(depth - 1))))
        inputs = outputs
    model.stages = nn.Sequential(*stages)
    model.head = final_norm(inputs) if block == "bn_first" else nn.Identity()
    model.classifier = nn.Linear(inputs, 10)
    initialise(model, source)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean = 0.2 * torch.randn(norm.num_features, generator=source)
            norm.running_var = 0.5 + torch.rand(norm.num_features, generator=source)
    return model.eval()


def hidden(model: nn.Module) -> dict[str, nn.Conv2d]:
    """All convolutions but the first."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d) and "stem" not in name}


def all_binary(widths: Sequence[int], depth: int) -> Predictor:
    """Binary weights and activations, shortcuts among them, in the packed runtime."""
    model = resnet("bn_first", widths, depth)
    for layer in hidden(model).values():
        layer.weight.data = binarize(layer.weight.data, "filter")
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.ReLU) and name.startswith("stages")]
    activations = dict.fromkeys(names, Activation("sign"))
    install_activations(model, activations)
    return packed.load(Compact(model, bits=dict.fromkeys(hidden(model), 1), activations=activations), SHAPE)


def ternary_weights(widths: Sequence[int], depth: int, calibration: Tensor) -> bytes:
    """Ternary weights, int8 activations."""
    model = resnet("standard", widths, depth)
    for layer in hidden(model).values():
        layer.weight.data = ternarize(layer.weight.data, 0.7, "mean", "filter")
    return to_onnx(Compact(model, bits=dict.fromkeys(hidden(model), 2)), calibration[:1], calibration)


def networks(calibration: Tensor) -> dict[str, Predictor]:
    """All networks of the table, loaded on one thread."""
    dense18, dense20 = Compact(resnet("standard", DENSE, 2)), Compact(resnet("standard", (16, 32, 64), 3))
    one = calibration[:1]
    return {
        "R18 OpenVINO fp32": openvino.load(to_onnx(dense18, one, None)),
        "R18 OpenVINO int8": openvino.load(to_onnx(dense18, one, calibration)),
        "R18 packed": all_binary(DENSE, 2),
        "R18 PFR 0.4 packed": all_binary(UP, 2),
        "R18 PFR 0.4 ternary up": openvino.load(ternary_weights(UP, 2, calibration)),
        "R18 PFR 0.4 ternary nearest": openvino.load(ternary_weights(NEAREST, 2, calibration)),
        "R20 ONNX Runtime int8": onnxruntime.load(to_onnx(dense20, one, calibration)),
        "R20 packed": all_binary((16, 32, 64), 3),
    }


def packed_layer(channels: int, size: int, source: torch.Generator) -> Predictor:
    """A binary layer end to end; it reads maps of its own, not what it is called with."""
    ones = np.ones(channels)
    signs = torch.randint(2, (channels, channels, 3, 3), generator=source).mul(2).sub(1).numpy().astype(np.int8)
    given, bits = Floats.new(channels, size, size), Bits.new(channels, size, size, 1, 1)
    output = Floats.new(channels, size, size)
    table = place(
        [
            rows.pack(given, Next(ones, 0 * ones, 0.0, bits)),
            bit_convolution(bits, signs, Geometry(3, 1, 1), ToFloats(ones, ones, None, output, None)),
        ]
    )
    memory = prepare(table, 1)
    shape = (size, size, 8 * vectors_of(channels))
    memory.view(given.buffer, shape)[...] = torch.randn(shape, generator=source).numpy()

    def run(images: Images) -> Logits:
        memory.run()
        return images

    return run


def torch_layer(channels: int, size: int, source: torch.Generator, memory_format: torch.memory_format) -> Predictor:
    """The same layer in fp32 torch."""
    x = torch.randn((1, channels, size, size), generator=source).to(memory_format=memory_format)
    w = torch.randn((channels, channels, 3, 3), generator=source).to(memory_format=memory_format)

    def run(images: Images) -> Logits:
        F.conv2d(x, w, padding=1)
        return images

    return run


def layers() -> dict[str, Predictor]:
    """The layers of the table."""
    source = torch.Generator().manual_seed(0)
    cases: dict[str, Predictor] = {}
    for channels, size in LAYERS:
        name = f"3x3 {channels}@{size}"
        cases[f"{name} packed"] = packed_layer(channels, size, source)
        cases[f"{name} torch NCHW"] = torch_layer(channels, size, source, torch.contiguous_format)
        cases[f"{name} torch NHWC"] = torch_layer(channels, size, source, torch.channels_last)
    return cases


def lines() -> list[Line]:
    """The table, line by line."""
    return [
        *(Line(f"3x3 {c}@{s}", f"3x3 {c}@{s} packed", f"3x3 {c}@{s} torch fp32", 14, 20) for c, s in LAYERS),
        Line("ResNet-18 binary / OpenVINO fp32", "R18 packed", "R18 OpenVINO fp32", 12, 18),
        Line("ResNet-18 binary / OpenVINO int8", "R18 packed", "R18 OpenVINO int8", 3.5, 5),
        Line("ResNet-18 binary PFR 0.4 / fp32 dense", "R18 PFR 0.4 packed", "R18 OpenVINO fp32", 25, 40),
        Line("ResNet-18 ternary PFR 0.4, int8 / fp32", "R18 PFR 0.4 ternary nearest", "R18 OpenVINO fp32", 10, 11.5),
        Line("the same, filters rounded up", "R18 PFR 0.4 ternary up", "R18 OpenVINO fp32", 10, 11.5),
        Line("ResNet-20 binary / ONNX Runtime int8", "R20 packed", "R20 ONNX Runtime int8", 1.2, 1.7),
    ]


def compilation() -> tuple[list[float], list[float]]:
    """Seconds and CPU seconds until all kernels are ready: with an empty cache folder, and with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": folder, "NUMBA_CACHE_DIR": ""}
        runs = [
            subprocess.run(
                [sys.executable, "-c", COMPILE],
                env=environment,
                cwd=Path(__file__).parent.parent,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for _ in range(4)
        ]
    first, *others = [[float(seconds) for seconds in run] for run in runs]
    return first, min(others)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cpu", action="store_true", help="CPU times instead of wall times, for a busy machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, cached = compilation()
    calibration = torch.randn((16, *SHAPE), generator=torch.Generator().manual_seed(0))
    images = calibration[:1].numpy()
    with torch.inference_mode():
        clock = time.process_time_ns if options.cpu else time.perf_counter_ns
        timings = time_interleaved(networks(calibration) | layers(), images, options.rounds, clock)
    times = {name: timing.median_ms for name, timing in timings.items()}
    for channels, size in LAYERS:
        name = f"3x3 {channels}@{size} torch"
        times[f"{name} fp32"] = min(times[f"{name} NCHW"], times[f"{name} NHWC"])
    kind = "CPU times" if options.cpu else "wall times"
    print(f"batch 1, one thread, medians of {kind} in {options.rounds} turns of each")
    print(f"kernels: {level()}; torch {torch.__version__}, {platform.machine()}")
    print(f"{'':40} {'ours ms':>9} {'theirs ms':>9} {'ratio':>7} {'goal':>6} {'stretch':>8}")
    for line in lines():
        ours, theirs = times[line.ours], times[line.theirs]
        print(f"{line.what:40} {ours:9.3f} {theirs:9.3f} {theirs / ours:7.1f} {line.goal:6g} {line.stretch:8g}")
    print(f"compilation of all kernels, first use: {first[0]:.2f} s ({first[1]:.2f} s of CPU); goal 8, stretch 4")
    print(f"the same from the cache folder: {cached[0]:.2f} s ({cached[1]:.2f} s of CPU); goal 1, stretch 0.3")
    busy = os.getloadavg()[0]
    if busy > 1.5:
        print(f"the machine was busy (load {busy:.1f} on {os.cpu_count()} CPUs): wall times flatter us, take --cpu")


if __name__ == "__main__":
    main()
