"""Torchvision's networks: built, initialised, guessed at, cut."""

import copy
import random

import pytest
import torch
from torch import Tensor, nn
from zeroed_channels import zero_channels

from orchestrator.estimate import Estimator, images_seen, network
from trainables.config import NATIVE_WIDTH, ModelConfig, TrialConfig, resolve
from trainables.errors import InfeasibleError
from trainables.keys import PathFinder
from trainables.model_names import TORCHVISION_MMACS
from trainables.models.build import build, first_layer, initialise, last_layer
from trainables.models.foreign import refuse_images
from trainables.pruning.cut import cut_channels
from trainables.pruning.groups import Scope, channel_groups
from trainables.pruning.rearranging import rearranging
from trainables.training.randomness import generator, isolated


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def torchvision_model(name: str, channels: int = 3, classes: int = 10) -> nn.Module:
    model = build(ModelConfig(name=name), channels, classes)
    initialise(model, generator(0, "init"))
    return model


def images(count: int, channels: int, size: int) -> Tensor:
    return torch.randn((count, channels, size, size), generator=generator(0, "calibration"))


def finite(model: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


# ---- names


def test_the_names_are_those_of_torchvision_that_we_do_not_define_ourselves() -> None:
    from torchvision import models

    assert set(TORCHVISION_MMACS) == set(models.list_models(module=models)) - set(NATIVE_WIDTH)


def test_the_table_of_costs_is_what_torchvision_states() -> None:
    from torchvision import models

    for name, mmacs in TORCHVISION_MMACS.items():
        weights = min(models.get_model_weights(name), key=lambda one: one.transforms.keywords["crop_size"])
        pixels = (weights.transforms.keywords["crop_size"] / 224) ** 2
        assert mmacs == pytest.approx(1000 * weights.meta["_ops"] / pixels, rel=0.05), name


def test_another_shape_of_a_foreign_network_is_refused() -> None:
    for leaves in ({"width": 8}, {"stem": "imagenet"}, {"block": "bn_first"}):
        with pytest.raises(ValueError, match=rf"model\.{next(iter(leaves))} has no effect on densenet121"):
            ModelConfig.model_validate({"name": "densenet121", **leaves})
    with pytest.raises(ValueError, match=r"model\.code_sha256 belongs to a model of your own"):
        ModelConfig(name="resnet8", code_sha256="0" * 64)


# ---- torchvision's models


@pytest.mark.parametrize(
    ("name", "first", "last", "size"),
    [
        ("mobilenet_v2", "features.0.0", "classifier.1", 8),
        ("densenet121", "features.conv0", "classifier", 32),
        ("shufflenet_v2_x0_5", "conv1.0", "fc", 8),
        ("squeezenet1_0", "features.0", "classifier.1", 32),
    ],
)
def test_a_torchvision_model_takes_grey_images_and_trains(name: str, first: str, last: str, size: int) -> None:
    model = torchvision_model(name, channels=1, classes=7)
    assert (first_layer(model), last_layer(model)) == (first, last)
    assert finite(model)
    logits = model(images(3, 1, size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_first_weights_are_those_of_torchvisions_constructor() -> None:
    from torchvision.models import mobilenet_v2

    ours = torchvision_model("mobilenet_v2").state_dict()
    seed = int(torch.randint(2**63 - 1, (), generator=generator(0, "init")))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        theirs = mobilenet_v2(num_classes=10).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_grey_images_see_the_constructors_planes_with_the_variance_of_colour() -> None:
    colour, grey = (torchvision_model("squeezenet1_0", channels).get_submodule("features.0") for channels in (3, 1))
    assert isinstance(colour, nn.Conv2d)
    assert isinstance(grey, nn.Conv2d)
    assert (grey.in_channels, grey.kernel_size, grey.stride) == (1, colour.kernel_size, colour.stride)
    torch.testing.assert_close(grey.weight, colour.weight[:, :1] * 3**0.5)


def test_weights_come_from_the_generator_alone_and_no_global_state_leaks() -> None:
    config = ModelConfig(name="shufflenet_v2_x0_5")
    states: list[dict[str, Tensor]] = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.default_generator.manual_seed(noise)
        random.seed(noise)
        before = torch.random.get_rng_state(), random.getstate()
        model = build(config, 1, 10)
        assert bool(model.get_parameter("fc.weight").isnan().all())
        initialise(model, generator(seed, "init"))
        assert torch.equal(before[0], torch.random.get_rng_state())
        assert before[1] == random.getstate()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])
    restored = build(config, 1, 10)
    restored.load_state_dict(states[0])
    assert finite(restored)


def test_one_classifier_where_torchvision_trains_three() -> None:
    from torchvision.models import googlenet

    ours = build(ModelConfig(name="googlenet"), 3, 10)
    with isolated(0):
        whole = sum(p.numel() for p in googlenet(num_classes=10, init_weights=False, aux_logits=False).parameters())
    assert sum(p.numel() for p in ours.parameters()) == whole
    assert isinstance(ours.train()(images(2, 3, 32)), Tensor)


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("squeezenet1_0", 8, "squeezenet1_0 does not take images of 8x8 pixels (see data.image_size): "),
        ("densenet121", 8, "densenet121 does not take images of 8x8 pixels (see data.image_size): "),
    ],
)
def test_images_that_are_too_small_are_infeasible(name: str, size: int, told: str) -> None:
    with pytest.raises(InfeasibleError) as caught:
        refuse_images(ModelConfig(name=name), 1, 10, size)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
    refuse_images(ModelConfig(name="mobilenet_v2"), 1, 10, 8)


# ---- estimates


def resolved(model: str, size: int = 32) -> TrialConfig:
    config = {"data": {"name": "cifar10", "image_size": size}, "model": {"name": model}}
    return resolve(TrialConfig.model_validate(config), "fp32")


def test_guesses_of_foreign_networks_follow_their_arithmetic() -> None:
    def seconds_per_image(model: str, size: int = 32) -> float:
        stage = PathFinder().path(resolved(model, size), 0)[0]
        return Estimator().estimate(stage).seconds / images_seen(stage)

    assert seconds_per_image("resnet50") > 5 * seconds_per_image("mobilenet_v2") > 0
    assert seconds_per_image("resnet50", 64) > 3 * seconds_per_image("resnet50")
    assert seconds_per_image("own.models:make") > 0


def test_a_foreign_network_is_named_by_its_name_size_and_code() -> None:
    assert network(resolved("densenet121")) == "densenet121 32x32"
    own = ModelConfig(name="own.models:make", code_sha256="ab" * 32)
    assert network(resolved("own.models:make").model_copy(update={"model": own})) == (
        "own.models:make abababababab 32x32"
    )


# ---- pruning


def lively(model: nn.Module) -> nn.Module:
    """BN statistics, scales and shifts away from 0 and 1, so that a wrong cut shows."""
    source = generator(1, "calibration")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=source)
            for tensor in (module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.normal_(0, 0.3, generator=source)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "scope"), [("mobilenet_v2", "inner"), ("mobilenet_v2", "all"), ("densenet121", "all")]
)
@torch.no_grad()
def test_masked_is_cut_with_depthwise_layers_and_with_concatenations(name: str, scope: Scope) -> None:
    model = lively(torchvision_model(name))
    groups = channel_groups(model, images(1, 3, 32), scope)
    source = generator(2, "calibration")
    chosen = [(group, torch.rand(group.channels, generator=source) > 0.4) for group in groups]
    for _, stays in chosen:
        stays[0] = True
    masked, cut = copy.deepcopy(model), copy.deepcopy(model)
    zero_channels(masked, chosen)
    cut_channels(cut, chosen)
    batch = images(4, 3, 32)
    expected = masked(batch)
    assert float((expected - model(batch)).abs().max()) > 0.01
    torch.testing.assert_close(cut(batch), expected)
    assert sum(p.numel() for p in cut.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())


def test_a_network_that_cannot_be_followed_is_infeasible() -> None:
    model = torchvision_model("shufflenet_v2_x0_5").train()
    told = r"none can be pruned: view in stage2\.0 makes \(2, 24, 4, 4\) of \(48, 4, 4\)$"
    with pytest.raises(InfeasibleError, match=rf"the channels of ShuffleNetV2 cannot be followed, so that {told}"):
        channel_groups(model, images(1, 3, 32), "all")
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())  # pyright: ignore[reportPrivateUsage]


def test_where_channels_stay_in_their_places_there_is_nothing_to_tell() -> None:
    assert rearranging(torchvision_model("mobilenet_v2"), images(1, 3, 32)) == ""
    assert rearranging(torchvision_model("densenet121"), images(1, 3, 32)) == ""


class Twice(nn.Module):
    """`again` runs twice; `tied` holds the parameter of `first`."""

    def __init__(self, *, twice: bool, tied: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 10)
        self.twice = twice
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)).relu()).relu()
        return self.head((self.second(x) if self.twice else x).mean((2, 3)))


@pytest.mark.parametrize(
    ("twice", "tied", "told"),
    [
        (True, False, "layer second is used 2 times in one pass; such a layer cannot be pruned or quantized"),
        (False, True, "layer first shares its weights with second; shared weights cannot be pruned or quantized"),
    ],
)
def test_shared_weights_are_infeasible(twice: bool, tied: bool, told: str) -> None:
    model = Twice(twice=twice, tied=tied).train()
    with pytest.raises(InfeasibleError, match=told):
        channel_groups(model, images(1, 1, 8), "all")
    assert all(module.training for module in model.modules())
    assert channel_groups(Twice(twice=False, tied=False), images(1, 1, 8), "all")
