"""Which leaves of the compression methods act, which do not, and which contradict one another."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables.config import BinaryConfig, StqConfig
from trainables.method_config import StepBase, StepMethod

OTHER: dict[str, object] = {
    "epochs": 7, "lr": 0.01, "pfr": 0.3, "scope": "all", "round_to": 8, "rounding": "nearest", "ramp_share": 0.1,
    "freeze_share": 0.1, "scale": "layer", "activations": "sign", "full_precision": (), "distill": 0.5,
    "temperature": 2.0, "mode": "threshold", "max_zero_share": 0.5, "budget": "global", "min_filters": 3,
    "threshold": 0.4, "threshold_of": "max", "score": "mean_abs", "weights": "ternary",
    "distill_losses": ("attention",), "hint_weight": 2.0, "distill_layers": ("stages.0",),
}  # fmt: skip
BASES: dict[str, dict[str, object]] = {
    "target": {},
    "threshold": {"mode": "threshold"},
    "unpruned": {"pfr": 0.0},
    "unpruned ternary": {"pfr": 0.0, "weights": "ternary"},
    "by magnitude": {"score": "mean_abs"},
    "distilled": {"distill": 0.5},
    "distilled by features": {"distill": 0.5, "distill_losses": ("features",)},
    "distilled by both": {"distill": 0.5, "distill_losses": ("relational", "logits")},
    "rounded": {"round_to": 16},
}
NO_TEACHER = {"temperature", "distill_losses", "hint_weight", "distill_layers"}
HINTS = {"hint_weight", "distill_layers"}
INERT: dict[str, set[str]] = {
    "target": {"max_zero_share", *NO_TEACHER, "rounding"},
    "threshold": {"pfr", "score", "budget", *NO_TEACHER, "rounding"},
    "unpruned": {
        "max_zero_share", *NO_TEACHER, "scope", "round_to", "rounding", "ramp_share", "freeze_share", "score",
        "budget", "min_filters", "threshold", "threshold_of",
    },
    "unpruned ternary": {
        "max_zero_share", *NO_TEACHER, "scope", "round_to", "rounding", "ramp_share", "freeze_share", "score",
        "budget", "min_filters",
    },
    "by magnitude": {"max_zero_share", *NO_TEACHER, "rounding", "threshold", "threshold_of"},
    "distilled": {"max_zero_share", "rounding", *HINTS},
    "distilled by features": {"max_zero_share", "rounding", "temperature"},
    "distilled by both": {"max_zero_share", "rounding"},
    "rounded": {"max_zero_share", *NO_TEACHER},
}  # fmt: skip


def test_no_leaf_is_forgotten() -> None:
    assert set(OTHER) == set(StqConfig.model_fields) - {"method"}


@pytest.mark.parametrize("base", BASES)
def test_exactly_the_inert_leaves_do_not_tell_computations_apart(base: str) -> None:
    plain = StqConfig.model_validate(BASES[base])
    assert plain.inert() == INERT[base]
    for leaf in set(OTHER) - set(BASES[base]):
        changed = StqConfig.model_validate({**BASES[base], leaf: OTHER[leaf]})
        assert (changed.canonical() == plain.canonical()) == (leaf in INERT[base]), leaf


@given(st.sampled_from(sorted(BASES)), st.floats(0.01, 0.9))
def test_the_canonical_form_is_a_fixed_point(base: str, lr: float) -> None:
    config = StqConfig.model_validate({**OTHER, **BASES[base], "lr": lr})
    assert config.canonical().canonical() == config.canonical()


def test_the_unpruned_twin_has_the_same_bits_and_schedule() -> None:
    config = StqConfig(pfr=0.4, scale="layer", activations="sign", distill=0.5, epochs=7, lr=0.01)
    assert config.unpruned() == BinaryConfig(scale="layer", activations="sign", distill=0.5, epochs=7, lr=0.01)
    ternary = config.model_copy(update={"weights": "ternary", "threshold": 0.5})
    assert ternary.unpruned() == ternary.model_copy(update={"pfr": 0.0}).canonical()
    by_threshold = config.model_copy(update={"mode": "threshold"})
    assert by_threshold.unpruned() == config.unpruned()


def test_a_ternary_filter_cannot_have_two_free_values() -> None:
    with pytest.raises(ValidationError, match="scale two_valued needs weights binary"):
        StqConfig(weights="ternary", scale="two_valued")


def lists_of_words() -> Iterator[tuple[type[StepBase], str, tuple[str, ...]]]:
    """Each leaf that holds some of a few words, with these."""
    for owner in get_args(StepMethod):
        for leaf, info in owner.model_fields.items():
            annotation: Any = info.annotation
            words = get_args(get_args(annotation)[0]) if get_origin(annotation) is tuple else ()
            if words:
                yield owner, leaf, words


LISTS = list(lists_of_words())
FREE = {"init": "random"}
"""With which every word of such a list can stand."""


def test_there_are_such_lists_of_every_kind() -> None:
    assert {leaf for _, leaf, _ in LISTS} == {"distill_losses", "full_precision", "layers", "keep", "eight_bits"}


@pytest.mark.parametrize(("owner", "leaf", "words"), LISTS, ids=lambda item: getattr(item, "__name__", str(item)))
def test_a_list_of_words_has_each_once_and_one_order(owner: type[StepBase], leaf: str, words: tuple[str, ...]) -> None:
    others = {name: value for name, value in FREE.items() if name in owner.model_fields}
    assert getattr(owner.model_validate({**others, leaf: words[::-1]}), leaf) == words
    with pytest.raises(ValidationError, match=f"{words[0]!r} is there twice; keep one"):
        owner.model_validate({**others, leaf: (words[0], words[1], words[0])})
