"""Reading a pool: the numbers of a plain loop, whatever was folded, fused or paired on the way."""

import copy
import math
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.active.fused import Convolution, fuse
from trainables.active.kernel import Kernel, has_kernels, paired, pixels
from trainables.active.network import drop_features
from trainables.active.scoring import read_pool, shrink
from trainables.config import Precision
from trainables.data.load import Dataset, Split, normalise, resize
from trainables.errors import InfeasibleError
from trainables.model_config import ModelConfig
from trainables.models.build import build, initialise, last_layer
from trainables.models.graph import graph
from trainables.training.loop import Settings, fit, predict
from trainables.training.randomness import generator

NETWORKS = [
    ("resnet8", 8, "standard"),
    ("resnet8", 5, "standard"),
    ("resnet14", 16, "standard"),
    ("resnet8", 8, "bn_first"),
    ("vgg_small", 8, "standard"),
    ("resnet18", 4, "standard"),
]

needs_bf16 = pytest.mark.skipif(not has_kernels("bf16"), reason="no bf16 on this processor")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading of the network as it is, by which a wrong rewriting would be saved, is a failure."""

    def refuse(*_: object) -> None:
        pytest.fail("the rewritten network was not used")

    monkeypatch.setattr("trainables.active.scoring._shown", refuse)


def pool(count: int = 40, channels: int = 1, size: int = 12) -> Dataset:
    """Images of a few random blobs, of two kinds that are told apart by where they are light."""
    source = torch.Generator().manual_seed(count + channels + size)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=source)
    split = Split(images, torch.randint(10, (count,), generator=source))
    return Dataset(split, split, split, 10, torch.linspace(0.3, 0.6, channels), torch.linspace(0.2, 0.4, channels))


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """BN as training leaves it: every statistic, scale and shift its own, some scales negative."""
    source = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.5, generator=source)
            module.get_buffer("running_var").uniform_(0.2, 3, generator=source)
            nn.init.normal_(module.weight, 0.8, 0.5, generator=source)
            nn.init.normal_(module.bias, 0, 0.3, generator=source)
    return model


def network(name: str = "resnet8", width: int = 8, block: str = "standard", channels: int = 1) -> nn.Module:
    settings = {"name": name, "width": width, "block": block, "stem": "cifar"}
    model = build(ModelConfig.model_validate(settings), channels, 10)
    initialise(model, generator(0, "init"))
    return with_statistics(model)


def read(model: nn.Module, data: Dataset, precision: Precision = "fp32") -> tuple[Tensor, Tensor]:
    reading = read_pool(model, data.train.images, data, precision=precision, device="cpu", features=True)
    assert reading.features is not None
    return reading.logits, reading.features


def last_inputs(model: nn.Module, data: Dataset) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(last_layer(model)).register_forward_hook(lambda _, x, __: seen.append(x[0]))
    predict(model, data.train, data)
    handle.remove()
    return torch.cat(seen)


def close(found: Tensor, expected: Tensor, relative: float = 1e-5) -> bool:
    return bool((found - expected).abs().max() <= relative * expected.abs().max())


def is_fused(model: nn.Module, precision: Precision = "fp32") -> bool:
    twin = fuse(copy.deepcopy(model).eval(), precision, last_layer(model), features=True)
    return twin is not None and not any(type(layer) is nn.Conv2d for _, layer in used_layers(twin))


def used_layers(twin: torch.fx.GraphModule) -> Iterator[tuple[str, nn.Module]]:
    for node in twin.graph.nodes:
        if node.op == "call_module":
            yield str(node.target), twin.get_submodule(str(node.target))


@pytest.mark.usefixtures("rewritten")
@pytest.mark.parametrize(("name", "width", "block"), NETWORKS)
@pytest.mark.parametrize(("channels", "size"), [(1, 12), (3, 9)])
def test_fp32_gives_what_a_plain_loop_gives(name: str, width: int, block: str, channels: int, size: int) -> None:
    data, model = pool(20, channels, size), network(name, width, block, channels)
    logits, features = read(model, data)
    assert close(logits, predict(model, data.train, data))
    assert close(features, last_inputs(model, data))
    assert is_fused(model)


def test_no_batch_norm_and_no_relu_is_left_of_a_residual_network_and_sums_are_taken_in() -> None:
    twin = fuse(network().eval(), "fp32", "classifier", features=False)
    assert twin is not None
    kinds = [type(layer) for _, layer in used_layers(twin)]
    assert kinds.count(Convolution) == 9
    assert not {nn.BatchNorm2d, nn.ReLU} & set(kinds)
    assert [node.op for node in twin.graph.nodes].count("call_function") <= 1  # flatten, no sum


def trained(data: Dataset, epochs: int = 4) -> nn.Module:
    model = build(ModelConfig.model_validate({"name": "resnet8", "width": 8, "stem": "cifar"}), 1, 10)
    initialise(model, generator(0, "init"))
    plan = Settings(
        epochs=epochs, lr=0.1, momentum=0.9, weight_decay=5e-4, batch_size=32, schedule="onecycle",
        label_smoothing=0.0, precision="fp32", augment="none", device="cpu",
    )  # fmt: skip
    fit(model, data, plan, seed=0)
    return model


@pytest.fixture(scope="module")
def digits() -> Dataset:
    from pathlib import Path

    from trainables.config import DataConfig
    from trainables.data.load import load

    torch.set_num_threads(1)
    config = DataConfig.model_validate(
        {"name": "digits", "image_size": 16, "train_size": 1200, "augment": "none", "val_share": 0.1}
    )
    return load(config, 0, Path())


@pytest.fixture(scope="module")
def model(digits: Dataset) -> nn.Module:
    torch.set_num_threads(1)
    return trained(digits)


@pytest.mark.usefixtures("rewritten")
def test_a_trained_network_is_read_as_it_predicts(model: nn.Module, digits: Dataset) -> None:
    logits, _ = read(model, digits)
    assert close(logits, predict(model, digits.train, digits))


def ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


@needs_bf16
@pytest.mark.usefixtures("rewritten")
def test_bf16_agrees_on_classes_and_on_the_order_of_least_confidence(model: nn.Module, digits: Dataset) -> None:
    expected = predict(model, digits.train, digits)
    logits, _ = read(model, digits, "bf16")
    assert is_fused(model, "bf16")
    assert (logits.argmax(1) == expected.argmax(1)).double().mean() >= 0.99
    confidence = torch.stack([ranks(each.softmax(1).amax(1)) for each in (logits, expected)])
    assert torch.corrcoef(confidence)[0, 1] >= 0.98
    assert not torch.equal(logits, expected)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_the_network_stays_as_it_was(precision: Precision) -> None:
    model, data = network().train(), pool()
    model.get_submodule("stem").eval()
    drop_features(model, 0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]  # pyright: ignore[reportPrivateUsage]
    children, formats = dict(model.named_modules()), [p.stride() for p in model.parameters()]
    read(model, data, precision)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()] == hooks  # pyright: ignore[reportPrivateUsage]
    assert dict(model.named_modules()) == children
    assert [p.stride() for p in model.parameters()] == formats
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_dropout_before_the_last_layer_is_off_and_does_not_stop_the_rewriting() -> None:
    model, data = network(), pool()
    plain, _ = read(model, data)
    drop_features(model.train(), 0.9)
    assert is_fused(model)
    assert torch.equal(read(model, data)[0], plain)


def test_a_hook_on_a_block_is_still_called() -> None:
    model, data = network(), pool()

    def double(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return output * 2

    model.get_submodule("stages").register_forward_hook(double)
    assert close(read(model, data)[0], predict(model, data.train, data))


@pytest.mark.parametrize("count", [0, 1, 3, 1025])
def test_any_number_of_images(count: int) -> None:
    data, model = pool(max(count, 1), size=8), network(width=2)
    part = read_pool(model, data.train.images[:count], data, precision="fp32", device="cpu", features=True)
    assert part.logits.shape == (count, 10)
    assert part.features is not None
    assert part.features.shape == (count, 8)
    if count:
        assert close(part.logits, predict(model, data.train, data))


@pytest.mark.usefixtures("rewritten")
def test_batches_that_overlap_give_each_image_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.active.scoring.BATCH_BYTES", {"cpu": 7 * 4 * 8 * 12 * 12})
    data, model = pool(40), network()
    logits, features = read(model, data)
    assert close(logits, predict(model, data.train, data))
    assert close(features, last_inputs(model, data))


@pytest.mark.usefixtures("rewritten")
@pytest.mark.parametrize("layer", ["stem.conv", "stages.0.0.conv2", "stages.1.0.downsample.conv", "stages.2.0.bn1"])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_a_weight_that_is_no_number_shows_in_the_logits(layer: str, precision: Precision) -> None:
    model, data = network(), pool()
    with torch.no_grad():
        model.get_submodule(layer).get_parameter("weight").flatten()[0] = math.nan
    expected = predict(model, data.train, data)
    assert bool(expected.isnan().any())
    assert torch.equal(read(model, data, precision)[0].isnan(), expected.isnan())


@pytest.mark.usefixtures("rewritten")
def test_mobilenet_of_torchvision() -> None:
    from torchvision import models

    torch.manual_seed(0)
    model = with_statistics(models.mobilenet_v2(num_classes=10, width_mult=0.1))
    data = pool(4, 3, 32)
    logits, features = read(model, data)
    assert is_fused(model)
    assert close(logits, predict(model, data.train, data))
    assert close(features, last_inputs(model, data))


class Odd(nn.Module):
    """Sums, ReLUs and orders that a careless rewriting gets wrong."""

    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        return self.fc(getattr(self, self.case)(x).mean((2, 3)))

    def written_over(self, x: Tensor) -> Tensor:
        y = self.second(x)
        x = F.relu(x, True)
        return y + x

    def itself(self, x: Tensor) -> Tensor:
        y = self.norm(self.second(x))
        return F.relu(y + y)

    def broadcast(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.second(x)) + x.mean((2, 3), keepdim=True))

    def scaled(self, x: Tensor) -> Tensor:
        return torch.add(self.second(x), x, alpha=3)

    def twice(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.second(x))))

    def read_before_its_norm(self, x: Tensor) -> Tensor:
        y = self.second(x)
        return self.norm(y) * y

    def constant(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(x) + 0.5)

    def into_the_other(self, x: Tensor) -> Tensor:
        kept = x
        x += self.second(x)
        return x * kept

    def two_sums(self, x: Tensor) -> Tensor:
        return self.norm(self.second(x)) + self.first(x[:, :1])

    def halves(self, x: Tensor) -> Tensor:
        return self.norm(F.max_pool2d(self.second(x), 2)).relu_()

    def by_value(self, x: Tensor) -> Tensor:
        return self.second(x) if bool(x.mean() < 1e9) else x

    def cut(self, x: Tensor) -> Tensor:
        return self.second(x)[:, :, 1:, ::2].clamp(-1, 1)

    def viewed(self, x: Tensor) -> Tensor:
        return self.second(x.view(len(x), -1).view(x.shape)) if x.is_contiguous() else self.second(x)


UNLIKE_THEIR_GRAPH = {"into_the_other", "by_value", "viewed"}
"""The first has another one, the others have none."""

CASES = [name for name in vars(Odd) if not name.startswith("_") and name != "forward"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_odd_networks(case: str, precision: Precision, request: pytest.FixtureRequest) -> None:
    if case not in UNLIKE_THEIR_GRAPH:
        request.getfixturevalue("rewritten")
    torch.manual_seed(1)
    model, data = with_statistics(Odd(case)), pool(12, 1, 10)
    logits, features = read(model, data, precision)
    relative = 1e-5 if precision == "fp32" else 0.03
    assert close(logits, predict(model, data.train, data), relative)
    assert close(features, last_inputs(model, data), relative)


class Contiguous(nn.Module):
    """Fails on maps in channels_last, which one input channel gives no reason to make."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return self.fc(x.view(x.shape[0], -1))


def test_a_network_that_cannot_take_the_faster_form_is_simply_run() -> None:
    model, data = Contiguous(), pool(9, 1, 8)
    twin = fuse(model.eval(), "fp32", "fc", features=True)
    assert twin is not None
    with pytest.raises(RuntimeError, match="view"):
        twin(normalise(data.train.images, data))
    assert close(read(model, data)[0], predict(model, data.train, data))


class Twin:
    """In the place of a rewritten network: says what `model` says, but for what a test spoils."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls = 0

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        logits = self.spoilt(self.model(images))
        return logits, logits

    def spoilt(self, logits: Tensor) -> Tensor:
        return logits


class SecondBatch(Twin):
    def spoilt(self, logits: Tensor) -> Tensor:
        if self.calls == 2:
            raise RuntimeError("a fault of the rewritten network")
        return logits


def twinned(monkeypatch: pytest.MonkeyPatch, twin: type[Twin], images: int) -> Dataset:
    """A pool that is read with a `twin` in batches of so many images."""
    data = pool(24, size=8)
    monkeypatch.setattr("trainables.active.scoring.fuse", lambda model, *_: twin(model))
    monkeypatch.setattr("trainables.active.scoring.BATCH_BYTES", {"cpu": images * 4 * 8 * 8 * 8})
    return data


@pytest.mark.parametrize("images", [4, 12])
def test_eight_images_are_read_twice_and_compared(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    class Eighth(Twin):
        def spoilt(self, logits: Tensor) -> Tensor:
            return torch.cat([logits[:7], logits[7:] + 1]) if images > 7 else logits + (self.calls == 2)

    data, model = twinned(monkeypatch, Eighth, images), network()
    found = read_pool(model, data.train.images, data, precision="fp32", device="cpu", features=False)
    assert close(found.logits, predict(model, data.train, data))


@pytest.mark.usefixtures("rewritten")
def test_a_rewritten_network_that_says_the_same_is_used_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = twinned(monkeypatch, Twin, 4), network()
    found = read_pool(model, data.train.images, data, precision="fp32", device="cpu", features=False)
    assert close(found.logits, predict(model, data.train, data))


def test_a_rewritten_network_that_fails_after_it_was_confirmed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = twinned(monkeypatch, SecondBatch, 12), network()
    with pytest.raises(RuntimeError, match="a fault of the rewritten network"):
        read_pool(model, data.train.images, data, precision="fp32", device="cpu", features=False)


def test_a_network_without_a_last_linear_layer_has_no_features() -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    data = pool(5)
    logits = read_pool(model, data.train.images, data, precision="fp32", device="cpu", features=False).logits
    assert close(logits, predict(model, data.train, data))
    with pytest.raises(InfeasibleError, match=r"last layer 0 is a Conv2d.*least_confidence"):
        read(model, data)


class Gated(nn.Module):
    """A linear layer in the middle, a convolution at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 6), nn.Conv2d(6, 10, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return self.head(x * self.gate(x.mean((2, 3)))[:, :, None, None]).mean((2, 3))


def test_a_linear_layer_in_the_middle_is_not_the_end() -> None:
    with pytest.raises(InfeasibleError, match=r"last layer gate is a Linear"):
        read(Gated(), pool(5))


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_two_pixels_at_once_are_the_same_convolution(draw: Any) -> None:
    data = cast("st.DataObject", draw)
    filters, channels, kernel = (data.draw(st.integers(1, 8)) for _ in range(3))
    size, padding = data.draw(st.integers(8, 13)), data.draw(st.integers(0, 2))
    source = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    conv = nn.Conv2d(channels, filters, (2, kernel), padding=padding)
    weight = torch.randn(conv.weight.shape, generator=source)
    one = Kernel.of(conv, weight, torch.randn(filters, generator=source), torch.float32)
    two, x = paired(one), one.ready(torch.randn(2, channels, size, size, generator=source))
    assert one.output_shape(x) == one(x, None, relu=False).shape
    if two is not None and one.output_shape(x)[-1] % 2 == 0:
        assert torch.allclose(pixels(two(x, None, relu=True)), F.relu(one(x, None, relu=False)), atol=1e-5)


@pytest.mark.parametrize(("channels", "size", "to"), [(1, 28, 14), (3, 32, 16), (1, 28, 19), (2, 8, 8), (1, 8, 12)])
def test_shrunk_images_are_resized_images(channels: int, size: int, to: int) -> None:
    split = pool(300, channels, size).train
    found, expected = shrink(split.images, to), resize(split, to).images
    assert found.dtype == torch.uint8
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 1e-4


def test_graph_of_the_network_is_still_its_own() -> None:
    model = network()
    before = [str(node.target) for node in graph(model).nodes]
    read(model, pool())
    assert [str(node.target) for node in graph(model).nodes] == before
