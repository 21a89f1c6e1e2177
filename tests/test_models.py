import itertools

import pytest
import torch
from torch import Tensor, nn

from trainables.config import NATIVE_WIDTH, ModelConfig
from trainables.errors import InfeasibleError
from trainables.models.build import BUILDERS, build, first_layer, initialise, last_layer
from trainables.training.randomness import generator


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(name: str, channels: int = 3, classes: int = 10, width: int | None = None, **leaves: str) -> nn.Module:
    config = {"name": name, "width": width or NATIVE_WIDTH[name], **leaves}
    model = build(ModelConfig.model_validate(config), channels, classes)
    initialise(model, generator(0, "init"))
    return model


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def images(count: int, channels: int, size: int) -> Tensor:
    return torch.randn((count, channels, size, size), generator=generator(0, "calibration"))


VARIANTS: list[tuple[str, dict[str, str]]] = [
    *((name, {"block": block}) for name in BUILDERS if name != "vgg_small" for block in ("standard", "bn_first")),
    ("resnet18", {"stem": "imagenet"}),
    ("resnet18", {"stem": "imagenet", "block": "bn_first"}),
    ("vgg_small", {}),
]


def cifar_resnet_parameters(n: int, width: int, channels: int, classes: int) -> int:
    """6n + 2 layers: convolutions, two numbers of BN for each filter, option B shortcuts, the linear layer."""
    total = channels * width * 9 + 2 * width
    for inputs, outputs in ((width, width), (width, 2 * width), (2 * width, 4 * width)):
        total += inputs * outputs * 9 + (2 * n - 1) * outputs * outputs * 9 + 2 * n * 2 * outputs
        if inputs != outputs:
            total += inputs * outputs + 2 * outputs
    return total + 4 * width * classes + classes


@pytest.mark.parametrize(("depth", "n"), [(8, 1), (14, 2), (20, 3), (32, 5), (56, 9)])
@pytest.mark.parametrize(("width", "channels", "classes"), [(16, 3, 10), (5, 1, 100)])
def test_cifar_resnets_have_the_arithmetic_number_of_parameters(
    depth: int, n: int, width: int, channels: int, classes: int
) -> None:
    model = network(f"resnet{depth}", channels, classes, width=width)
    assert parameters(model) == cifar_resnet_parameters(n, width, channels, classes)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == depth - 1


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet20", 0.27e6), ("resnet32", 0.46e6), ("resnet56", 0.85e6)],  # CVPR 2016, table 6, option A
)
def test_cifar_resnets_are_the_published_ones_and_two_projections(name: str, published: float) -> None:
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameters(network(name)) - projections == pytest.approx(published, abs=0.007e6)


def test_resnet18_has_the_published_number_of_parameters() -> None:
    assert parameters(network("resnet18")) == 11_173_962
    from torchvision.models import resnet18

    with torch.device("meta"):
        reference = parameters(resnet18())
    assert parameters(network("resnet18", classes=1000, stem="imagenet")) == reference == 11_689_512


def test_imagenet_resnet18_computes_what_torchvisions_does() -> None:
    from torchvision.models import resnet18

    ours = network("resnet18", classes=12, stem="imagenet", width=64).eval()
    with torch.device("meta"):
        reference = resnet18(num_classes=12)
    reference = reference.to_empty(device="cpu").eval()
    weights = dict(ours.state_dict().items())
    reference.load_state_dict(dict(zip(reference.state_dict(), _in_torchvisions_order(weights), strict=True)))
    batch = images(2, 3, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), reference(batch))


def _in_torchvisions_order(weights: dict[str, Tensor]) -> list[Tensor]:
    return list(weights.values())  # both define conv1, bn1, conv2, bn2, downsample in a block


def test_vgg_small_has_the_arithmetic_number_of_parameters() -> None:
    widths = [3, 128, 128, 256, 256, 512, 512]
    convolutions = sum(i * o * 9 + 2 * o for i, o in itertools.pairwise(widths))
    assert parameters(network("vgg_small")) == convolutions + 512 * 10 + 10


@pytest.mark.parametrize(("name", "leaves"), VARIANTS)
def test_every_network_runs_trains_and_has_its_ends(name: str, leaves: dict[str, str]) -> None:
    size = 32 if leaves.get("stem") == "imagenet" else 8
    model = network(name, 1, 7, 4, **leaves)
    logits = model(images(3, 1, size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    assert (first_layer(model), last_layer(model)) == ("stem.conv", "classifier")


@pytest.mark.parametrize(("name", "leaves"), VARIANTS)
def test_convolutions_beside_bn_have_no_bias(name: str, leaves: dict[str, str]) -> None:
    assert all(m.bias is None for m in network(name, 3, 10, 4, **leaves).modules() if isinstance(m, nn.Conv2d))


def test_bn_first_block_is_its_formula() -> None:
    model = network("resnet8", 1, width=4, block="bn_first").eval()
    block = model.get_submodule("stages.1.0")
    x = images(2, 4, 8)
    with torch.no_grad():
        active = block.bn1(x).relu()  # type: ignore[operator]
        inner = block.conv2(block.bn2(block.conv1(active)).relu())  # type: ignore[operator]
        torch.testing.assert_close(block(x), inner + block.downsample(active))  # type: ignore[operator]


def test_activations_can_be_replaced() -> None:
    model = network("resnet8", 1, width=4, block="bn_first")
    seen: list[str] = []
    for name, module in list(model.named_modules()):
        if name.endswith(("act1", "act2")):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(images(2, 1, 8))
    assert seen == [f"stages.{stage}.0.{act}" for stage in range(3) for act in ("act1", "act2")]


INNER = {
    "resnet8": ("stages.0.0.conv1", "stages.0.0.bn1", "stages.0.0.conv2"),
    "vgg_small": ("features.0.conv", "features.0.bn", "features.1.conv"),
}


@pytest.mark.parametrize("name", list(INNER))
def test_shrunk_modules_still_run(name: str) -> None:
    model = network(name, 1, width=8).eval()
    inner = INNER[name]
    keep = torch.tensor([0, 2, 5])
    batch = images(2, 1, 8)
    with torch.no_grad():
        first, norm, second = (model.get_submodule(path) for path in inner)
        _silence(first, norm, keep)
        expected = model(batch)
        first.weight = nn.Parameter(first.weight[keep])  # type: ignore[index]
        for field in ("weight", "bias"):
            setattr(norm, field, nn.Parameter(getattr(norm, field)[keep]))
        for field in ("running_mean", "running_var"):
            setattr(norm, field, getattr(norm, field)[keep])
        second.weight = nn.Parameter(second.weight[:, keep])  # type: ignore[index]
        torch.testing.assert_close(model(batch), expected)


def _silence(first: nn.Module, norm: nn.Module, keep: Tensor) -> None:
    for tensor in (first.weight, norm.weight, norm.bias):
        assert isinstance(tensor, Tensor)
        zeroed = torch.ones(len(tensor), dtype=torch.bool)
        zeroed[keep] = False
        tensor[zeroed] = 0


def test_build_and_initialise_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    network("resnet8")
    network("vgg_small", width=4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_are_nan_until_they_are_set() -> None:
    model = build(ModelConfig(name="resnet8", width=4), 1, 10)
    assert bool(model(images(2, 1, 8)).isnan().all())
    saved = network("resnet8", 1, width=4).state_dict()
    model.load_state_dict(saved)
    assert bool(model(images(2, 1, 8)).isfinite().all())


def test_weights_come_from_the_generator_alone() -> None:
    config = ModelConfig(name="resnet8", width=4)
    states: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        model = build(config, 1, 10)
        initialise(model, generator(seed, "init"))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["stem.conv.weight"], states[2]["stem.conv.weight"])


def test_first_weights_have_the_stated_distribution() -> None:
    model = network("resnet18")
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        elif isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not bool(module.bias.any())
        elif isinstance(module, nn.Linear):
            assert float(module.weight.detach().abs().max()) == pytest.approx(512**-0.5, rel=0.01)
            assert not bool(module.bias.any())


def test_unknown_parameters_and_open_configs_are_refused() -> None:
    with pytest.raises(TypeError, match=r"no initialisation is known for 0 \(PReLU\)"):
        initialise(nn.Sequential(nn.PReLU()), generator(0, "init"))
    with pytest.raises(ValueError, match=r"model\.width is open"):
        build(ModelConfig(name="resnet8"), 1, 10)
    with pytest.raises(InfeasibleError, match="Sequential has neither a convolution"):
        first_layer(nn.Sequential(nn.ReLU()))


def test_the_ends_of_networks_without_a_convolution_or_without_a_linear_layer() -> None:
    linear = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    convolutional = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    for model in (linear, convolutional):
        assert (first_layer(model), last_layer(model)) == ("0", "2")
