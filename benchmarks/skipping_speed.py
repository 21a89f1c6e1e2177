"""What leaving kernels out for each image saves in time: batch 1, one thread, medians of interleaved calls.

    uv run python benchmarks/skipping_speed.py [--rounds 50] [--network resnet18]

Networks with random weights get the gates of `lkam`, set so that about the given share of each layer's kernels is on;
only speed is asked. They run in the runtime `skipping`, which computes what is on; so does the dense network without
gates, which also runs in OpenVINO's fp32, the honest baseline.
"""

import argparse
import sys
from statistics import NormalDist

import torch
from torch import nn

from trainables.export.onnx import to_onnx
from trainables.measure.dynamic import dynamic_cost, gates_watched
from trainables.measure.latency import time_interleaved
from trainables.method_config import LkamConfig
from trainables.methods.lkam import LearnedGate, Lkam
from trainables.model_config import ModelConfig
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.runtimes import openvino, skipping
from trainables.runtimes.base import Predictor

SHARES = (0.15, 0.3, 0.5, 1.0)


def dense(name: str) -> nn.Module:
    """A network for 32x32 images with random weights."""
    width = {"resnet18": 64, "vgg_small": 128}.get(name, 16)
    model = build(ModelConfig.model_validate({"name": name, "width": width}), 3, 10)
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


@torch.no_grad()
def with_gates(name: str, share: float, images: torch.Tensor) -> nn.Module:
    """The same with gates that are open for about `share` of the kernels."""
    model, method = dense(name), Lkam(LkamConfig())
    method.transform(model, images[:1])
    gates = [module for module in model.modules() if isinstance(module, LearnedGate)]
    for gate in gates:
        gate.spread.momentum = None  # the statistics of these images alone
        gate.spread.bias.fill_(NormalDist().inv_cdf(share) if share < 1 else 100.0)
        gate.spread.train()
    model(images)
    return method.finalize(model.eval()).model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--network", default="resnet18")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = Compact(dense(options.network))
    predictors: dict[str, Predictor] = {
        "dense, OpenVINO fp32": openvino.load(to_onnx(plain, images[:1], None), 1),
        "dense, skipping": skipping.load(plain),
    }
    macs: dict[str, float] = {}
    for share in SHARES:
        model = with_gates(options.network, share, images)
        with torch.no_grad(), gates_watched(model) as seen:
            model(images[:1])
        found = dynamic_cost(model, images[:1], seen, torch.zeros(1))
        name = f"{share:.0%} of the kernels on"
        macs[name] = found.worst / found.expected if found else 1.0
        predictors[name] = skipping.load(Compact(model))
    times = time_interleaved(predictors, images[:1].numpy(), options.rounds)
    base, best = times["dense, skipping"].median_ms, times["dense, OpenVINO fp32"].median_ms
    sys.stdout.write("| network | ms | times fewer MACs | faster than dense, skipping | than dense, OpenVINO |\n")
    for name, timing in times.items():
        ratios = f"{macs.get(name, 1.0):.2f} | {base / timing.median_ms:.2f} | {best / timing.median_ms:.2f}"
        sys.stdout.write(f"| {name} | {timing.median_ms:.3f} | {ratios} |\n")


if __name__ == "__main__":
    main()
