"""The small language of `when` and `exclude`: comparisons and arithmetic over the leaves of a cell.

    compress.pfr > 0.4 and model.name in ['resnet20', 'resnet32']

Python's parser gives the tree; a walker over the node types named here gives the value. Nothing is executed.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.spec.wording import kind, meant, show
from orchestrator.spec.yaml_nodes import Value

MAX_LENGTH = 500
MAX_DEPTH = 40

Lookup = Callable[[str], Value]

_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}
_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_ORDER: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_EQUAL: dict[type[ast.cmpop], bool] = {ast.Eq: True, ast.NotEq: False}
_MEMBER: dict[type[ast.cmpop], bool] = {ast.In: True, ast.NotIn: False}
_SYNTAX = "allowed are comparisons, and, or, not, in, + - * /, numbers, 'text', true, false, null, [lists] and names"

_NUMBERED = re.compile(r"(?<=\.steps\.)(?=[1-9]_)")
"""Where a step's name begins with its number, which no name of Python's may: it gets a `_` for the parser."""


class ExpressionError(ValueError):
    """The text is no expression of this language, or has no value for a cell."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed condition; `names` are the leaves it reads, `literals` what a leaf is compared with."""

    text: str
    names: frozenset[str]
    literals: tuple[tuple[str, Value], ...]
    _tree: ast.expr = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    def value(self, lookup: Lookup) -> Value:
        """The value, the names being looked up.

        Raises:
            ExpressionError: operands of the wrong type, a division by zero, a result that is no finite number.

        """
        return _value(self._tree, lookup)

    def holds(self, lookup: Lookup) -> bool:
        """The value as a condition.

        Raises:
            ExpressionError: as `value`, or the value is neither true nor false.

        """
        found = self.value(lookup)
        if not isinstance(found, bool):
            raise ExpressionError(f"`{self.text}` is {kind(found)}, not true or false; compare it with something")
        return found


def parse_expression(text: str, known: Iterable[str]) -> Expression:
    """Check the syntax and the names of a condition.

    Raises:
        ExpressionError: too long, too deep, a syntax error, a construct outside the language or an unknown name.

    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"has {len(text)} characters; an expression has at most {MAX_LENGTH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(_NUMBERED.sub("_", text.strip()), mode="eval").body
        names: dict[str, None] = {}
        literals: list[tuple[str, Value]] = []
        _check(tree, names, literals, 0)
    except ExpressionError:
        raise
    except (SyntaxError, Warning, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{show(text)} is no expression; {_SYNTAX}") from error
    options = frozenset(known)
    for name in names:
        if name not in options:
            raise ExpressionError(f"unknown name '{name}'{meant(name, options)}")
    return Expression(text.strip(), frozenset(names), tuple(literals), tree)


def _check(node: ast.expr, names: dict[str, None], literals: list[tuple[str, Value]], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"is nested deeper than {MAX_DEPTH} levels")
    if (name := _dotted(node)) is not None:
        if name not in _WORDS:
            names[name] = None
        return
    if isinstance(node, ast.Compare):
        literals.extend(_compared(node))
    for child in _children(node):
        _check(child, names, literals, depth + 1)


def _children(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str | None):
        return []
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.List | ast.Tuple):
        return node.elts
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.UAdd):
        return [node.operand]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return [node.left, node.right]
    if isinstance(node, ast.Compare) and all(type(op) in {**_ORDER, **_EQUAL, **_MEMBER} for op in node.ops):
        return [node.left, *node.comparators]
    raise ExpressionError(f"{show(ast.unparse(node))} is not allowed; {_SYNTAX}")


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)) is not None:
        return f"{owner}.{node.attr.removeprefix('_') if owner.endswith('.steps') else node.attr}"
    return None


def _compared(node: ast.Compare) -> list[tuple[str, Value]]:
    """The leaves and constants that stand beside each other in a comparison for equality or membership."""
    found: list[tuple[str, Value]] = []
    sides = [node.left, *node.comparators]
    for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
        if type(op) in _ORDER:
            continue
        for name, other in ((_dotted(left), right), (_dotted(right), left)):
            if name is not None and name not in _WORDS:
                items = other.elts if isinstance(other, ast.List | ast.Tuple) else [other]
                found.extend((name, item.value) for item in items if isinstance(item, ast.Constant))  # pyright: ignore[reportArgumentType]
    return found


def _value(node: ast.expr, lookup: Lookup) -> Value:
    if (name := _dotted(node)) is not None:
        return _WORDS[name] if name in _WORDS else lookup(name)
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_value(item, lookup) for item in node.elts)
    if isinstance(node, ast.BoolOp):
        return _junction(node, lookup)
    if isinstance(node, ast.UnaryOp):
        return _unary(node, lookup)
    if isinstance(node, ast.BinOp):
        return _arithmetic(node, lookup)
    if isinstance(node, ast.Compare):
        return _chain(node, lookup)
    raise ExpressionError(f"{show(ast.unparse(node))} is not allowed; {_SYNTAX}")


def _junction(node: ast.BoolOp, lookup: Lookup) -> bool:
    ends_at = isinstance(node.op, ast.Or)
    return ends_at if any(_truth(item, lookup) is ends_at for item in node.values) else not ends_at


def _truth(node: ast.expr, lookup: Lookup) -> bool:
    value = _value(node, lookup)
    if not isinstance(value, bool):
        raise ExpressionError(
            f"{ast.unparse(node)} is {kind(value)}; and, or, not join conditions that are true or false"
        )
    return value


def _unary(node: ast.UnaryOp, lookup: Lookup) -> Value:
    if isinstance(node.op, ast.Not):
        return not _truth(node.operand, lookup)
    number = _number(node.operand, lookup)
    return -number if isinstance(node.op, ast.USub) else number


def _number(node: ast.expr, lookup: Lookup) -> float:
    value = _value(node, lookup)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"{ast.unparse(node)} is {kind(value)}; a number is needed")
    return value


def _arithmetic(node: ast.BinOp, lookup: Lookup) -> float:
    left, right = _number(node.left, lookup), _number(node.right, lookup)
    text = ast.unparse(node)
    try:
        value = _ARITHMETIC[type(node.op)][1](left, right)
        finite = math.isfinite(value)
    except ZeroDivisionError as error:
        raise ExpressionError(f"{text} divides by zero") from error
    except OverflowError as error:
        raise ExpressionError(f"{text} is too large a number") from error
    if not finite:
        raise ExpressionError(f"{text} is too large a number")
    return value


def _chain(node: ast.Compare, lookup: Lookup) -> bool:
    left = _value(node.left, lookup)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = _value(comparator, lookup)
        if not _compare(type(op), left, right, node):
            return False
        left = right
    return True


def _compare(op: type[ast.cmpop], left: Value, right: Value, node: ast.Compare) -> bool:
    if op in _MEMBER:
        if not isinstance(right, tuple):
            raise ExpressionError(f"`{ast.unparse(node)}`: in needs a list, not {kind(right)}")
        return any(_same(left, item, node) for item in right) is _MEMBER[op]
    if op in _EQUAL:
        return _same(left, right, node) is _EQUAL[op]
    if _sort(left) != _sort(right) or _sort(left) not in (float, str):
        sign = _ORDER[op][0]
        raise ExpressionError(f"`{ast.unparse(node)}`: {kind(left)} {sign} {kind(right)} has no answer")
    return _ORDER[op][1](left, right)


def _same(left: Value, right: Value, node: ast.Compare) -> bool:
    """Equality; null equals null alone, and to compare different sorts of values is a mistake."""
    if left is None or right is None:
        return left is right
    if _sort(left) is not _sort(right):
        raise ExpressionError(f"`{ast.unparse(node)}` compares {kind(left)} with {kind(right)}")
    return left == right


def _sort(value: Value) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
