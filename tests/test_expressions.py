import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.expressions import MAX_LENGTH, ExpressionError, parse_expression
from orchestrator.spec.yaml_nodes import Value

CELL: dict[str, Value] = {
    "model.name": "resnet8",
    "compress.method": None,
    "compress.pfr": 0.4,
    "train.epochs": 30,
    "compress.full_precision": ("first", "last"),
    "seed": 2,
}


def value(text: str) -> Value:
    return parse_expression(text, CELL).value(CELL.__getitem__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("compress.pfr > 0.3", True),
        ("0.3 < compress.pfr <= 0.4 < 1", True),
        ("0.3 < compress.pfr < 0.4", False),
        ("model.name in ['resnet8', 'resnet20'] and not seed == 0", True),
        ("model.name not in ('resnet8',)", False),
        ("compress.method == null", True),
        ("compress.method != 'stq'", True),
        ("compress.method == null or compress.method > 3", True),
        ("'first' in compress.full_precision", True),
        ("train.epochs * (1 - compress.pfr) / 2 - -1 == 10", True),
        ("true and not false", True),
        ("True == true", True),
        ("null in [1, null]", True),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert parse_expression(text, CELL).holds(CELL.__getitem__) is expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "seed.__class__",
        "().__class__",
        "[x for x in [1]]",
        "lambda: 1",
        "seed if seed else 1",
        "f'{seed}'",
        "seed ** 9",
        "seed % 2",
        "seed // 2",
        "seed & 1",
        "~seed",
        "seed is 2",
        "{1: 2}",
        "{1}",
        "1j == 1",
        "b'a' == 1",
        "... == 1",
        "(y := 1) == 1",
        "[1][0] == 1",
        "model.name.upper() == 'A'",
        "seed; seed",
        "seed = 1",
        "",
        " ",
        "&& seed",
        "seed == ",
        "*seed",
        "'\\d' == 'a'",
        "1if 1else 2",
        "a\x00b",
        "((((",
        "await seed",
        "~" * 400 + "1",
    ],
)
def test_nothing_outside_the_language_is_read(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"is no expression|is not allowed|unknown name"):
        parse_expression(text, CELL)


def test_length_and_depth_are_bounded() -> None:
    with pytest.raises(ExpressionError, match=f"at most {MAX_LENGTH}"):
        parse_expression("1" * (MAX_LENGTH + 1), CELL)
    with pytest.raises(ExpressionError, match="nested deeper than 40 levels"):
        parse_expression("1" + "+1" * 200 + " > 1", CELL)
    with pytest.raises(ExpressionError, match="nested deeper"):
        parse_expression("-" * 90 + "1 > 0", CELL)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("compress.pfr / (seed - 2) > 1", "compress.pfr / (seed - 2) divides by zero"),
        ("1e308 * 10 > 1", "1e+308 * 10 is too large a number"),
        (f"{'9' * 400} * 1.5 > 1", "is too large a number"),
        (f"{'9' * 400} / 3 > 1", "is too large a number"),
        ("model.name + 1 > 2", "model.name is text; a number is needed"),
        ("true + 1 > 2", "True is a truth value; a number is needed|true is a truth value; a number is needed"),
        ("compress.method > 1", "null > a number has no answer"),
        ("model.name > 1", "text > a number has no answer"),
        ("[1] < [2]", "a list < a list has no answer"),
        ("compress.pfr == '0.4'", "compares a number with text"),
        ("seed == true", "compares a number with a truth value"),
        ("seed in [true]", "compares a number with a truth value"),
        ("'first' in model.name", "in needs a list, not text"),
        ("seed and true", "seed is a number; and, or, not join conditions that are true or false"),
        ("not compress.method", "compress.method is null; and, or, not join"),
    ],
)
def test_what_has_no_value_says_why(text: str, told: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value(text)
    assert any(part in str(caught.value) for part in told.split("|"))


def test_a_condition_must_be_true_or_false() -> None:
    with pytest.raises(ExpressionError, match="`seed` is a number, not true or false; compare it with something"):
        parse_expression("seed", CELL).holds(CELL.__getitem__)


def test_an_unknown_name_has_a_suggestion() -> None:
    with pytest.raises(ExpressionError, match=r"unknown name 'compress.prf'; did you mean 'compress.pfr'\?"):
        parse_expression("compress.prf > 1", CELL)


def test_names_and_the_literals_they_are_compared_with_are_known() -> None:
    found = parse_expression("model.name == 'a' or 'b' != model.name or model.name in ['c', 'd'] and seed > 1", CELL)
    assert found.names == {"model.name", "seed"}
    assert [literal for name, literal in found.literals if name == "model.name"] == ["a", "b", "c", "d"]


NUMBERS = st.one_of(
    st.integers(0, 20).map(str), st.floats(0, 10, allow_nan=False).map(repr), st.sampled_from(["x", "y.z"])
)
VALUES = {"x": 3, "y.z": 0.5}


def _joined(parts: st.SearchStrategy[str], signs: list[str]) -> st.SearchStrategy[str]:
    return st.tuples(parts, st.sampled_from(signs), parts).map(lambda found: f"({found[0]} {found[1]} {found[2]})")


SUMS = st.recursive(
    NUMBERS, lambda inner: st.one_of(_joined(inner, ["+", "-", "*", "/"]), inner.map("-{}".format)), max_leaves=8
)
CHAINS = st.lists(SUMS, min_size=2, max_size=4).flatmap(
    lambda sums: st.lists(
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), min_size=len(sums) - 1, max_size=len(sums) - 1
    ).map(
        lambda signs: (
            "(" + sums[0] + "".join(f" {sign} {term}" for sign, term in zip(signs, sums[1:], strict=True)) + ")"
        )
    )
)
MEMBERS = st.tuples(SUMS, st.sampled_from(["in", "not in"]), st.lists(SUMS, max_size=3)).map(
    lambda found: f"({found[0]} {found[1]} [{', '.join(found[2])}])"
)
CONDITIONS = st.recursive(
    st.one_of(CHAINS, MEMBERS),
    lambda inner: st.one_of(_joined(inner, ["and", "or", "==", "!="]), inner.map("(not {})".format)),
    max_leaves=6,
)


def python_says(text: str) -> object:
    """Python's own value; the texts are made of the pieces above alone."""
    try:
        found = eval(text.replace("y.z", "y_z"), {"__builtins__": {}}, {"x": 3, "y_z": 0.5})
    except ZeroDivisionError:
        return ZeroDivisionError
    return found


@settings(max_examples=300, deadline=None)
@given(CONDITIONS)
def test_conditions_are_what_python_says(text: str) -> None:
    expected = python_says(text) if len(text) <= MAX_LENGTH else None
    try:
        found: object = parse_expression(text, VALUES).holds(VALUES.__getitem__)
    except ExpressionError as error:
        found = ZeroDivisionError if "divides by zero" in str(error) else None
        assert found or len(text) > MAX_LENGTH or "too large" in str(error)  # noqa: PT017
        if found is None:
            return
    assert found is expected


@settings(max_examples=200, deadline=None)
@given(SUMS)
def test_sums_are_what_python_says(text: str) -> None:
    expected = python_says(text)
    try:
        found: object = parse_expression(text, VALUES).value(VALUES.__getitem__)
    except ExpressionError as error:
        assert expected is ZeroDivisionError or "too large" in str(error) or len(text) > MAX_LENGTH  # noqa: PT017
        return
    assert isinstance(found, int | float)
    assert found == expected
    assert math.isfinite(found)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ax.()[]'\"<>=!+-*/ 019,~{}\\\n#:@&|%notinadr\0", max_size=40))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    try:
        found = parse_expression(text, VALUES)
    except ExpressionError:
        return
    try:
        found.value(VALUES.__getitem__)
    except ExpressionError as error:
        assert str(error)  # noqa: PT017
