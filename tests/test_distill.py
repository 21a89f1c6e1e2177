"""Losses that follow another network: closed forms, what cannot be compared, and that every method can have them."""

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_methods import MODEL, dense, header, images, settings, trained
from torch import Tensor, nn

from trainables.config import FinetuneConfig, L1PruneConfig, StqConfig, TrialConfig, resolve
from trainables.data.load import Dataset, normalise
from trainables.errors import InfeasibleError
from trainables.export.packed import pack, unpack
from trainables.keys import PathFinder
from trainables.method_config import DistillFields, ExpandConfig, GroupSparsityConfig
from trainables.methods.distilled import Distilled, last_of_each_size
from trainables.methods.finetune import Finetune
from trainables.methods.registry import create
from trainables.models.build import build, initialise
from trainables.training.distill import (
    HINT_LOSSES,
    attention_loss,
    feature_loss,
    hint_loss,
    logits_loss,
    relational_loss,
)
from trainables.training.loop import fit, predict
from trainables.training.randomness import generator

torch.set_num_threads(1)
EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return images()


@pytest.fixture(scope="module")
def parent(data: Dataset) -> nn.Module:
    return dense(data, MODEL)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "calibration"))


def test_logits_of_two_classes_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    p = (0.75, 0.25)  # at T = 2
    expected = 4 * sum(share * math.log(share / 0.5) for share in p)
    assert float(logits_loss(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_features_are_the_mean_square() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    assert float(feature_loss(student, teacher)) == (0 + 4 + 9 + 0) / 4


def test_attention_by_hand_and_of_other_widths() -> None:
    student = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])  # Q = (2, 4) over its two channels
    teacher = torch.tensor([[[[3.0, 0.0]], [[0.0, 0.0]], [[0.0, 2.0]]]])  # Q = (9, 4) over its three
    a, b = (torch.tensor(q) / math.hypot(*q) for q in ((2.0, 4.0), (9.0, 4.0)))
    assert float(attention_loss(student, teacher)) == pytest.approx(float((a - b).square().sum()), rel=1e-5)
    assert float(attention_loss(3 * student, student)) == pytest.approx(0, abs=1e-12)  # scale does not count
    assert torch.isfinite(attention_loss(torch.zeros(2, 3, 4, 4), drawn(2, 3, 4, 4)))


def test_relations_by_hand_and_of_other_shapes() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # G is the identity
    teacher = torch.tensor([[1.0], [1.0]])  # all of G is 1; its rows become 1 / sqrt(2)
    off, on = (1 / math.sqrt(2)) ** 2, (1 - 1 / math.sqrt(2)) ** 2
    assert float(relational_loss(student, teacher)) == pytest.approx((2 * off + 2 * on) / 4, rel=1e-5)
    rotation, _ = torch.linalg.qr(drawn(5, 5))
    features = drawn(7, 5, seed=1)
    assert float(relational_loss(features @ rotation, features)) == pytest.approx(0, abs=1e-10)
    assert float(relational_loss(drawn(7, 3), features)) > 1e-3


@pytest.mark.parametrize("kind", HINT_LOSSES)
def test_a_loss_is_of_fp32_where_training_is_of_bf16(kind: str) -> None:
    student, teacher = drawn(6, 3, 4, 4), drawn(6, 3, 4, 4, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = hint_loss(kind, "a", student, teacher)
    torch.testing.assert_close(found, hint_loss(kind, "a", student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize("kind", HINT_LOSSES)
def test_a_loss_is_zero_for_equals_alone_and_has_a_gradient(kind: str) -> None:
    teacher = drawn(6, 3, 4, 4)
    student = drawn(6, 3, 4, 4, seed=1).requires_grad_()
    assert float(hint_loss(kind, "a", teacher, teacher)) == pytest.approx(0, abs=1e-10)
    loss = hint_loss(kind, "a", student, teacher)
    loss.backward()
    assert loss.detach() > 1e-3
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    nearer = student.detach() - 0.1 * student.grad / student.grad.norm()
    assert float(hint_loss(kind, "a", nearer, teacher)) < float(loss.detach())


WRONG_SHAPES = {
    "features of other widths": ("features", (2, 3, 4, 4), (2, 5, 4, 4), r"layer stages\.1 gives \[3, 4, 4\] an image"),
    "attention of other sizes": ("attention", (2, 3, 4, 4), (2, 3, 2, 2), r"attention needs images \(C, H, W\) of one"),
    "attention of vectors": ("attention", (2, 3), (2, 3), r"teacher's \[3\].*take relational"),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_what_cannot_be_compared_is_refused_by_the_layers_name(name: str) -> None:
    kind, ours, theirs, told = WRONG_SHAPES[name]
    with pytest.raises(InfeasibleError, match=told):
        hint_loss(kind, "stages.1", torch.zeros(ours), torch.zeros(theirs))


@pytest.mark.parametrize("kind", ["attention", "relational"])
def test_other_widths_are_no_obstacle_to(kind: str) -> None:
    assert torch.isfinite(hint_loss(kind, "a", drawn(4, 3, 2, 2), drawn(4, 7, 2, 2, seed=1)))


def test_a_teacher_of_other_classes_is_refused_with_both_counts(parent: nn.Module) -> None:
    teacher = build(MODEL, 1, 100)
    initialise(teacher, generator(0, "init"))
    config = FinetuneConfig(distill=0.5)
    with pytest.raises(InfeasibleError, match="the teacher tells 100 classes apart and the student 10"):
        Distilled(Finetune(config), config, teacher).transform(copy.deepcopy(parent), EXAMPLE)


def test_the_layers_are_the_last_of_each_image_size(parent: nn.Module) -> None:
    assert last_of_each_size(parent, EXAMPLE) == ("stages.0", "stages.1", "head")


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        (("stages.7",), r"compress\.distill_layers: ResNet has no layer 'stages\.7'; it has stem, stem\.conv"),
        (("",), "has no layer ''"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers: tuple[str, ...], told: str, parent: nn.Module) -> None:
    method = create(FinetuneConfig(distill=0.5, distill_losses=("features",), distill_layers=layers))
    with pytest.raises(InfeasibleError, match=told):
        method.transform(copy.deepcopy(parent), EXAMPLE)


def test_a_network_without_maps_is_refused() -> None:
    bare, method = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), create(
        FinetuneConfig(distill=0.5, distill_losses=("attention",))
    )  # fmt: skip
    with pytest.raises(InfeasibleError, match="no layer of Sequential gives images whose features"):
        method.transform(bare, EXAMPLE)


def test_the_loss_is_the_mixture_that_it_says(parent: nn.Module, data: Dataset) -> None:
    config = FinetuneConfig(
        distill=0.25, temperature=2.0, hint_weight=3.0, distill_losses=("relational", "logits", "features"),
        distill_layers=("stem", "stages.1"),
    )  # fmt: skip
    student, method = copy.deepcopy(parent), create(config)
    batch = normalise(data.train.images[:20], data)
    method.transform(student, batch[:1])
    with torch.no_grad():
        student.get_submodule("stages.0.0.conv1").get_parameter("weight").mul_(0.5)
    method.before_epoch(student, 0, 1)
    student.eval()
    logits, task = student(batch), torch.tensor(2.0)
    found = method.loss(student, batch, logits, task)
    method.after_epoch(student, 0, 1)

    def outputs(model: nn.Module) -> list[Tensor]:
        stem = model.eval().get_submodule("stem")(batch)
        first = model.get_submodule("stages.0")(stem)
        return [stem, model.get_submodule("stages.1")(first)]

    pairs = list(zip(outputs(student), outputs(parent), strict=True))
    hints = sum(float(kind(a, b).detach()) for kind in (feature_loss, relational_loss) for a, b in pairs) / 2
    expected = 0.75 * 2 + 0.25 * (float(logits_loss(logits, parent(batch), 2.0).detach()) + 3 * hints)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    assert not any(module._forward_hooks for module in student.modules())  # pyright: ignore[reportPrivateUsage]


def distilled(losses: tuple[str, ...]) -> dict[str, object]:
    return {"distill": 0.8, "distill_losses": losses, "hint_weight": 1.0, "epochs": 2}


@pytest.mark.parametrize("losses", [("features",), ("attention", "relational"), ("logits", "features")])
def test_a_student_that_follows_comes_nearer_than_one_that_does_not(
    losses: tuple[str, ...], parent: nn.Module, data: Dataset
) -> None:
    """A network of other first weights, trained with the teacher's loss alone or with none of it."""
    outputs: list[float] = []
    reference = predict(parent, data.test, data)
    for share in (0.0, 1.0):
        config = FinetuneConfig.model_validate({**distilled(losses), "distill": share, "hint_weight": 10.0})
        student = build(MODEL, 1, 10)
        initialise(student, generator(3, "init"))
        method = Distilled(Finetune(config), config, copy.deepcopy(parent))
        method.transform(student, normalise(data.train.images[:1], data))
        fit(student, data, settings(2, 0.05), 0, method)
        outputs.append(_distance(student, parent, losses, data))
    assert outputs[1] < outputs[0]
    assert reference.shape == (len(data.test), 10)


def _distance(student: nn.Module, teacher: nn.Module, losses: tuple[str, ...], data: Dataset) -> float:
    batch = normalise(data.val.images[:100], data)
    stages = [
        nn.Sequential(model.eval().get_submodule("stem"), model.get_submodule("stages")) for model in (student, teacher)
    ]
    with torch.no_grad():
        a, b = (stage(batch) for stage in stages)
        return sum(float(HINT_LOSSES[loss](a, b)) for loss in losses if loss != "logits")


METHODS: dict[str, DistillFields] = {
    "l1_prune": L1PruneConfig.model_validate({"pfr": 0.4, **distilled(("logits", "features", "attention"))}),
    "expand": ExpandConfig.model_validate({"factor": 2, **distilled(("relational",))}),
    "ternary": StqConfig.model_validate({"pfr": 0.2, "weights": "ternary", **distilled(("attention",))}),
    "group_sparsity": GroupSparsityConfig.model_validate(
        {"penalty": 2.0, "scope": "all", "free_share": 0.0, **distilled(("attention", "relational"))}
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_follow_its_parent(name: str, parent: nn.Module, data: Dataset) -> None:
    config = METHODS[name]
    followed, method = trained(parent, data, config)  # pyright: ignore[reportArgumentType]
    alone, _ = trained(parent, data, config.model_copy(update={"distill": 0.0}))  # pyright: ignore[reportArgumentType]
    logits = predict(followed, data.test, data)
    assert not torch.equal(logits, predict(alone, data.test, data))
    finished = method.finalize(followed)
    reloaded, _ = unpack(pack(finished, header(data)))
    torch.testing.assert_close(predict(reloaded.model, data.test, data), logits, rtol=1e-3, atol=1e-3)


def test_features_of_channels_that_were_cut_while_training_are_refused(parent: nn.Module, data: Dataset) -> None:
    config = METHODS["group_sparsity"].model_copy(update={"distill_losses": ("features",), "lr": 0.1})
    with pytest.raises(InfeasibleError, match=r"layer (stages\.\d|head) gives .*features need equal shapes"):
        trained(parent, data, config)  # pyright: ignore[reportArgumentType]


def key_of(method: Mapping[str, object]) -> str:
    tree = {"data": {"name": "digits"}, "model": {"name": "resnet8"}, "compress": method}
    return PathFinder().path(resolve(TrialConfig.model_validate_json(json.dumps(tree)), "fp32"), 0)[1].key


def test_keys_hold_what_acts_and_nothing_else() -> None:
    plain = key_of({"method": "xnet"})
    assert plain == key_of({"method": "xnet", "temperature": 2, "distill_losses": ["features"], "hint_weight": 3})
    logits = key_of({"method": "xnet", "distill": 0.5})
    assert logits != plain
    assert logits == key_of({"method": "xnet", "distill": 0.5, "hint_weight": 3, "distill_layers": ["stages.0"]})
    features = {"method": "xnet", "distill": 0.5, "distill_losses": ["features"]}
    assert key_of(features) == key_of({**features, "temperature": 9})
    assert len({logits, key_of(features), key_of({**features, "hint_weight": 2})}) == 3
    both = {"method": "xnet", "distill": 0.5, "distill_losses": ["features", "logits"]}
    assert key_of(both) == key_of({**both, "distill_losses": ["logits", "features"]})


def test_keys_of_studies_from_before_stand() -> None:
    """Taken before distillation was every method's."""
    before = json.loads(Path(__file__).with_name("golden_keys.json").read_text())
    assert {text: key_of(json.loads(text)) for text in before} == before


def test_a_loss_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="'features' is there twice; keep one"):
        FinetuneConfig(distill=0.5, distill_losses=("features", "features"))
