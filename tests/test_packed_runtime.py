"""Whole networks in the packed runtime against torch, on this CPU and on lesser ones."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from packed_networks import packed_network
from torch import nn

from trainables.config import ModelConfig
from trainables.errors import InfeasibleError
from trainables.kernels.program import cache_folder
from trainables.models.build import build, initialise
from trainables.models.compact import Compact
from trainables.quantize import Activation, SignActivation, install_activations
from trainables.runtimes.packed import load

ROOT = Path(__file__).parent.parent
SHAPE = (3, 16, 16)
AVX2 = "+avx,+avx2,+bmi,+bmi2,+fma,+lzcnt,+popcnt,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2"

ON_THIS_CPU = """
import sys
sys.path.insert(0, "tests")
import numpy as np
import torch
from packed_networks import packed_network
from trainables.kernels.program import cache_folder, program
from trainables.kernels.target import level
from trainables.runtimes.packed import load

torch.set_num_threads(1)
images = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
for settings in (
    {"name": "resnet8", "width": 20},
    {"name": "resnet8", "width": 39, "weights": "ternary", "full_precision": ("stem",)},
    {"name": "resnet8", "width": 16, "weights": "two_valued"},
    {"name": "vgg_small", "width": 12, "weights": "ternary", "activations": "ternary"},
):
    network = packed_network(**settings)
    with torch.no_grad():
        expected = network.model(images).numpy()
    np.testing.assert_allclose(load(network, (3, 8, 8))(images.numpy()), expected, rtol=1e-4, atol=1e-5)
print(level(), cache_folder() is not None, sum(program().stats.cache_hits.values()))
"""


def images(n: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(1)).numpy()


def in_torch(network: Compact, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return network.model(torch.from_numpy(batch)).numpy()


def assert_same(network: Compact, shape: tuple[int, int, int] = SHAPE) -> None:
    """Logits to rounding: no activation of these networks lies within rounding of its threshold."""
    batch = images(3, shape)
    expected = in_torch(network, batch)
    found = load(network, shape)(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("activations", ["sign", "ternary"])
@pytest.mark.parametrize("weights", ["binary", "layer", "one", "two_valued", "ternary"])
def test_resnets_of_all_weights_and_activations(weights: str, activations: str) -> None:
    assert_same(packed_network("resnet8", 16, weights, activations, full_precision=("stem",)))


@pytest.mark.parametrize(("name", "width"), [("resnet20", 16), ("resnet18", 16), ("resnet18", 39), ("resnet8", 5)])
def test_resnets_of_all_depths_and_widths_with_fp32_shortcuts(name: str, width: int) -> None:
    assert_same(packed_network(name, width))


@pytest.mark.parametrize("activations", ["sign", "ternary"])
@pytest.mark.parametrize("weights", ["binary", "two_valued", "ternary"])
def test_vgg_whose_poolings_are_of_bits(weights: str, activations: str) -> None:
    assert_same(packed_network("vgg_small", 12, weights, activations))


def test_images_that_are_not_square_and_odd() -> None:
    assert_same(packed_network("resnet8", 16), (3, 15, 18))


def test_an_imagenet_stem() -> None:
    source = torch.Generator().manual_seed(0)
    model = build(ModelConfig(name="resnet18", width=8, block="bn_first", stem="imagenet"), 3, 10).eval()
    initialise(model, source)
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.ReLU) and "stages" in name]
    network = Compact(model, activations=dict.fromkeys(names, Activation("sign")))
    install_activations(model, network.activations)
    assert_same(network, (3, 32, 32))


def test_float_activations_before_the_mean_and_a_convolution_with_bias() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 9, 3, bias=True)
            self.act = SignActivation()
            self.conv = nn.Conv2d(9, 12, 3, stride=2, padding=1)
            self.pool = nn.MaxPool2d(2)
            self.mean = nn.AdaptiveAvgPool2d(1)
            self.linear = nn.Linear(12, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.pool(torch.relu(self.conv(self.act(self.stem(x)))))
            return self.linear(torch.flatten(self.mean(y), 1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Small()
    model.conv.weight.data = model.conv.weight.data.sign() * 0.5
    assert_same(Compact(model, bits={"conv": 1}, activations={"act": Activation("sign")}))


def test_batches_of_any_size_and_several_threads_give_the_same() -> None:
    network = packed_network("resnet8", 16)
    batch = images(19)
    one, two = load(network, SHAPE), load(network, SHAPE, threads=2)
    expected = one(batch)
    np.testing.assert_array_equal(two(batch), expected)
    np.testing.assert_array_equal(one(batch), expected)
    np.testing.assert_array_equal(np.concatenate([one(image[None]) for image in batch]), expected)
    assert one(batch[:0]).shape == (0, 10)


def test_memory_is_taken_once_a_batch_size() -> None:
    predictor = load(packed_network("resnet8", 16), SHAPE)
    predictor(images(2))
    table = predictor.prepared[0][2].table
    predictor(images(2))
    assert predictor.prepared[0][2].table is table


def test_the_network_is_left_as_it_was() -> None:
    network = packed_network("resnet8", 16)
    network.model.train()
    load(network, SHAPE)
    assert network.model.training


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), r"float32 \(1, 3, 8, 8\), want C-contiguous float32 \(N, 3, 16, 16\)"),
        (np.zeros((1, 3, 16, 16)), "images are float64"),
        (np.zeros((1, 16, 16, 3), np.float32).transpose(0, 3, 1, 2), "want C-contiguous"),
    ],
)
def test_images_of_another_kind_are_refused(batch: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(packed_network("resnet8", 16), SHAPE)(batch)


def resnet(block: str) -> nn.Module:
    model = build(ModelConfig.model_validate({"name": "resnet8", "width": 8, "block": block}), 3, 10)
    initialise(model, torch.Generator().manual_seed(0))
    return model


def test_fp32_activations_are_refused() -> None:
    with pytest.raises(InfeasibleError, match=r"no activation of this network has 1 or 2 bits.*sign or ternary"):
        load(Compact(resnet("bn_first")), SHAPE)


def test_int8_activations_are_refused_by_name() -> None:
    network = Compact(resnet("standard"), activations={"stem.act": Activation("int8", 0.1)})
    with pytest.raises(InfeasibleError, match=r"stem\.act: activations are int8; .* sign or ternary"):
        load(network, SHAPE)


def test_a_convolution_of_fp32_inputs_is_refused_by_name() -> None:
    model = resnet("standard")
    activations = {"stages.2.0.act1": Activation("sign")}
    install_activations(model, activations)
    with pytest.raises(InfeasibleError, match=r"stages\.\d\.0\.(conv1|downsample\.conv) \(Conv2d\)"):
        load(Compact(model, activations=activations), SHAPE)


def test_groups_are_refused_by_name() -> None:
    network = packed_network("resnet8", 8)
    block = network.model.get_submodule("stages.0.0")
    block.conv1 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    with pytest.raises(InfeasibleError, match=r"stages\.0\.0\.conv1: .* groups 1 .* groups 8"):
        load(network, SHAPE)


def test_weights_of_too_many_values_are_refused_by_name() -> None:
    network = packed_network("resnet8", 8)
    conv = network.model.get_submodule("stages.0.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    conv.weight.data[2] = torch.arange(72).view(8, 3, 3)
    with pytest.raises(InfeasibleError, match=r"stages\.0\.0\.conv1: filter 2 has 72 values"):
        load(network, SHAPE)


def test_an_operation_without_a_kernel_is_refused_by_name() -> None:
    network = packed_network("resnet8", 8)
    network.model.pool = nn.AdaptiveAvgPool2d(2)
    network.model.classifier = nn.Linear(4 * 32, 10)
    with pytest.raises(InfeasibleError, match=r"pool \(AdaptiveAvgPool2d\): .* the mean over the image"):
        load(network, SHAPE)


def on_cpu(environment: dict[str, str]) -> list[str]:
    """Level, whether there is a cache folder, and hits in it, of a process that has checked four networks."""
    run = subprocess.run(
        [sys.executable, "-c", ON_THIS_CPU],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_a_plain_cpu_without_a_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "cache")
    found = on_cpu(
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "XDG_CACHE_HOME": nowhere, "NUMBA_CACHE_DIR": ""}
    )
    assert found == ["plain", "False", "0"]


def test_an_avx2_cpu_compiles_once(tmp_path: Path) -> None:
    cpu = {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": AVX2,
        "XDG_CACHE_HOME": str(tmp_path),
        "NUMBA_CACHE_DIR": "",
    }
    assert on_cpu(cpu) == ["avx2", "True", "0"]
    assert on_cpu(cpu) == ["avx2", "True", "1"]


def test_no_cache_folder_where_home_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        msg = "no home"
        raise RuntimeError(msg)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(unknown))
    assert cache_folder() is None
