"""The leaves of a trial's config: their names, and what is wrong with a value, in plain words."""

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from orchestrator.spec.wording import kind, meant, show
from orchestrator.spec.yaml_nodes import Value
from trainables.config import Section, TrialConfig
from trainables.model_names import ModelNames

Tree = Mapping[str, Value]

OBSERVED = frozenset({"latency"})
"""Sections that say what is observed of finished trials: no trial differs from another by them."""


@dataclass(frozen=True, slots=True)
class SectionFacts:
    """One part of the tree. `tag` is the leaf that selects among several `classes` (compress.method), or empty."""

    name: str
    classes: Mapping[str, type[Section]]
    tag: str
    required: bool
    default: Section | None

    def leaves(self) -> list[str]:
        """The leaf names of all classes."""
        return list(dict.fromkeys(name for owner in self.classes.values() for name in fields(owner)))

    def of(self, tree: Tree) -> type[Section] | None:
        """The class that the tag selects, or None where it is absent or unknown."""
        if not self.tag:
            return self.classes[""]
        tag = tree.get(self.tag)
        return self.classes.get(tag) if isinstance(tag, str) else None


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a leaf (empty: with the section as a whole)."""

    leaf: str
    message: str
    unknown_key: bool = False


def sections() -> dict[str, SectionFacts]:
    """The sections of a trial's config by name."""
    return {name: _section(name, info) for name, info in TrialConfig.model_fields.items()}


def fields(owner: type[Section]) -> dict[str, FieldInfo]:
    """The leaves that a study may set; the others are filled in by the plan."""
    return {name: info for name, info in owner.model_fields.items() if not _is_read_only(info)}


def _is_read_only(info: FieldInfo) -> bool:
    extra = info.json_schema_extra
    return isinstance(extra, Mapping) and extra.get("readOnly") is True


def leaf_paths() -> list[str]:
    """Every dotted path, `compress.pfr`."""
    return [f"{name}.{leaf}" for name, facts in sections().items() for leaf in facts.leaves()]


def optional_paths() -> frozenset[str]:
    """The dotted paths of leaves that may be null."""
    return frozenset(
        f"{name}.{leaf}"
        for name, facts in sections().items()
        for owner in facts.classes.values()
        for leaf, info in fields(owner).items()
        if type(None) in get_args(info.annotation)
    )


@cache
def uncompared(path: str) -> str:
    """Why the leaf at a dotted path cannot be made large or small; empty where it can."""
    section, _, leaf = path.partition(".")
    numeric = [one for one in leaf_paths() if _is_compared(*one.split("."))]
    if path in numeric:
        return ""
    if path not in leaf_paths():
        return f"is no config leaf{meant(path, [one for one in numeric if one.startswith(f'{section}.')] or numeric)}"
    why = "is the same in every trial" if section in OBSERVED else f"holds no number but {_held(section, leaf)}"
    return f"{why}; it cannot be compared"


def _is_compared(section: str, leaf: str) -> bool:
    owners = sections()[section].classes.values()
    found = [owner.model_fields[leaf].annotation for owner in owners if leaf in owner.model_fields]
    return section not in OBSERVED and any({int, float} & {one, *_alternatives(one)} for one in found)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()


def _held(section: str, leaf: str) -> str:
    owners = sections()[section].classes.values()
    return next(want(owner, leaf) for owner in owners if leaf in owner.model_fields)


def _section(name: str, info: FieldInfo) -> SectionFacts:
    classes = list(_models(info.annotation))
    default = None if info.is_required() else cast("Section | None", info.default)
    if len(classes) == 1:
        return SectionFacts(name, {"": classes[0]}, "", info.is_required(), default)
    tag = next(field for field, found in classes[0].model_fields.items() if len(_options(found.annotation)) == 1)
    by_tag = {str(owner.model_fields[tag].default): owner for owner in classes}
    return SectionFacts(name, by_tag, tag, info.is_required(), default)


def _models(annotation: Any) -> Iterable[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _models(part)


def _options(annotation: Any) -> tuple[str, ...]:
    return cast("tuple[str, ...]", get_args(annotation)) if get_origin(annotation) is Literal else ()


def options(facts: SectionFacts, leaf: str) -> tuple[str, ...]:
    """The words that a leaf may hold, where it holds one of some words."""
    if leaf == facts.tag:
        return tuple(facts.classes)
    found = [owner.model_fields[leaf] for owner in facts.classes.values() if leaf in owner.model_fields]
    return tuple(dict.fromkeys(word for info in found for word in _words(info)))


def _words(info: FieldInfo) -> tuple[str, ...]:
    names = _names(info)
    return names.words if names else _options(info.annotation)


def _names(info: FieldInfo) -> ModelNames | None:
    return next((item for item in info.metadata if isinstance(item, ModelNames)), None)


def is_real(owner: type[Section], leaf: str) -> bool:
    """A leaf of fractions: whole numbers in it are stored as fractions too."""
    return owner.model_fields[leaf].annotation is float


def build(facts: SectionFacts, tree: Tree) -> tuple[Section | None, list[Wrong]]:
    """The section's object, or everything that is wrong with it."""
    owner = facts.of(tree)
    if owner is None:
        return None, [_wrong_tag(facts, tree)]
    try:
        return owner.model_validate(dict(tree)), []
    except ValidationError as error:
        return None, _told(facts, owner, tree, error)


def check_leaf(facts: SectionFacts, owner: type[Section], leaf: str, value: Value) -> list[Wrong]:
    """What is wrong with one value by itself."""
    if leaf not in fields(owner):
        return [Wrong(leaf, foreign(facts, leaf, owner), unknown_key=True)]
    if leaf == facts.tag:
        return [] if value in tuple(facts.classes) else [_wrong_tag(facts, {leaf: value})]
    if facts.name in OBSERVED and isinstance(value, tuple) and (twice := _twice(value)) is not None:
        return [Wrong(leaf, f"{show(twice)} is there twice; keep one")]
    if (large := _too_large(value)) is not None and not is_real(owner, leaf):
        return [Wrong(leaf, f"{large} is larger than any whole number that a table holds, 2^63 - 1")]
    try:
        owner.model_validate({leaf: value})
    except ValidationError as error:
        return [wrong for wrong in _told(facts, owner, {leaf: value}, error) if wrong.leaf == leaf]
    return []


def _too_large(value: Value) -> int | None:
    """The whole number in a value that is beyond 64 bits, or None."""
    items = value if isinstance(value, tuple) else (value,)
    return next((item for item in items if isinstance(item, int) and not -(2**63) <= item < 2**63), None)


def _twice(values: tuple[Value, ...]) -> Value:
    return next((value for number, value in enumerate(values) if value in values[:number]), None)


def foreign(facts: SectionFacts, leaf: str, owner: type[Section] | None) -> str:
    """Why a leaf is no key of this section or of this method."""
    if owner is not None and leaf in owner.model_fields and leaf not in fields(owner):
        return "is filled in by the plan; remove it"
    homes = [tag for tag, other in facts.classes.items() if leaf in other.model_fields]
    if homes and owner is not None and facts.tag:
        own = owner.model_fields[facts.tag].default
        return f"belongs to {facts.tag} {' and '.join(homes)}, not to {own}"
    known = fields(owner) if owner is not None else facts.leaves()
    return f"unknown key{meant(leaf, known)}"


def _wrong_tag(facts: SectionFacts, tree: Tree) -> Wrong:
    if facts.tag not in tree:
        return Wrong(facts.tag, f"is required: one of {', '.join(facts.classes)}")
    return Wrong(facts.tag, _none_of(tree[facts.tag], tuple(facts.classes)))


def _none_of(value: object, known: Sequence[str]) -> str:
    near = meant(str(value), known)
    listed = "" if near.startswith("; valid") else f" Valid: {', '.join(known)}"
    return f"{show(value)} is not known{near}{listed}"


def _told(facts: SectionFacts, owner: type[Section], tree: Tree, error: ValidationError) -> list[Wrong]:
    found: list[Wrong] = []
    errors = error.errors(include_url=False)
    items = {item["loc"][0] for item in errors if len(item["loc"]) > 1}
    for item in errors:
        if item["type"] == "too_short" and item["loc"][0] in items:
            continue  # of a list whose items are wrong, pydantic counts none
        leaf = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            found.append(Wrong(leaf, foreign(facts, leaf, owner), unknown_key=True))
        elif item["type"] == "value_error":
            found.append(Wrong(leaf, str(item.get("ctx", {}).get("error", item["msg"]))))
        elif item["type"] == "missing":
            found.append(Wrong(leaf, f"is required: {want(owner, leaf)}"))
        else:
            found.append(Wrong(leaf, _leaf_words(owner, leaf, tree.get(leaf), item)))
    return found


def _leaf_words(owner: type[Section], leaf: str, value: object, error: ErrorDetails) -> str:
    info, part = owner.model_fields[leaf], error["input"]
    if (known := _options(info.annotation)) and isinstance(value, str):
        return _none_of(value, known)
    words = _item_options(info)
    if words and part is not value and isinstance(part, str):
        return f"{_none_of(part, words)}"
    wanted = want(owner, leaf)
    if error["type"] == "too_short":
        return f"is empty; {wanted} is wanted"
    if len(error["loc"]) > 1 and not words and isinstance(place := error["loc"][1], int):
        numeric = not _holds_texts(info)
        one = f"a whole number{_bounds(_item_bounds(info))}" if numeric else "text"
        return f"element {place + 1}: {_unfit(part, one, numeric=numeric)}"
    return _unfit(value, wanted, numeric=_is_numeric(info))


def _unfit(value: object, wanted: str, *, numeric: bool) -> str:
    if numeric and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{show(value)} is not {wanted}"
    return f"{show(value)} is {'no value here' if value is None else kind(value)}; {wanted} is wanted"


def _is_numeric(info: FieldInfo) -> bool:
    return bool({int, float} & {info.annotation, *get_args(info.annotation)})


def _item_options(info: FieldInfo) -> tuple[str, ...]:
    return _options(get_args(info.annotation)[0]) if get_origin(info.annotation) is tuple else ()


def _holds_texts(info: FieldInfo) -> bool:
    return get_args(info.annotation)[0] is str


def _item_bounds(info: FieldInfo) -> list[Any]:
    """What bounds the items of a list, `tuple[Annotated[int, Field(ge=1)], ...]`."""
    notes = getattr(get_args(info.annotation)[0], "__metadata__", ())
    return [bound for note in notes for bound in (note.metadata if isinstance(note, FieldInfo) else [note])]


_NOUNS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def want(owner: type[Section], leaf: str) -> str:
    """The values that a leaf takes: `a number in [0, 1)`."""
    info = owner.model_fields[leaf]
    if names := _names(info):
        return f"one of {names.wanted}"
    if known := _options(info.annotation):
        return f"one of {', '.join(known)}"
    if items := _item_options(info):
        return f"a list of {', '.join(items)}"
    if get_origin(info.annotation) is tuple and _holds_texts(info):
        return "a list of texts"
    if get_origin(info.annotation) is tuple:
        return f"a list of whole numbers{_bounds(_item_bounds(info))}"
    kinds = {info.annotation, *get_args(info.annotation)}
    noun = next((noun for one, noun in _NOUNS.items() if one in kinds), "text")
    null = " or null" if type(None) in kinds else ""
    return f"{noun}{_bounds(info.metadata)}{null}"


def _bounds(metadata: Sequence[Any]) -> str:
    low = next((item.ge for item in metadata if isinstance(item, Ge)), None)
    above = next((item.gt for item in metadata if isinstance(item, Gt)), None)
    high = next((item.le for item in metadata if isinstance(item, Le)), None)
    below = next((item.lt for item in metadata if isinstance(item, Lt)), None)
    first, last = (above if low is None else low), (below if high is None else high)
    if first is not None and last is not None:
        return f" in {'(' if low is None else '['}{first}, {last}{')' if high is None else ']'}"
    if first is not None:
        return f" above {first}" if low is None else f" of at least {first}"
    return "" if last is None else f" below {last}" if high is None else f" of at most {last}"
