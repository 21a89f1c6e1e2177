"""The JSON schema of a study file, for editors that complete and check while one types."""

from collections.abc import Mapping
from typing import Any, cast

from orchestrator.failures import RETRIES
from orchestrator.spec.demands import DEVICES, KINDS
from orchestrator.spec.leaves import OBSERVED, SectionFacts, sections
from orchestrator.spec.model import KEEP, REPEATS, SEARCH_NAMES
from orchestrator.spec.pipelines import PIPELINE, step_facts

Schema = dict[str, Any]

_NUMBER: Schema = {"type": "number"}
_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}


def study_schema() -> Schema:
    """JSON Schema (2020-12) of a study: base is a partial config, axes are keyed by dotted leaf paths."""
    facts = sections()
    axes: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {path: _axis(leaf) for path, leaf in _leaves(_varied(facts)).items()},
        "patternProperties": {
            rf"^compress\.steps\.[1-9]_\w+\.{name}$": _axis(leaf)
            for name, leaf in _leaf_schemas(step_facts(facts["compress"])).items()
        },
    }
    base: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {n: _section(f) for n, f in facts.items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"step": _step(facts["compress"])},
        "title": "study",
        "type": "object",
        "additionalProperties": False,
        "required": ["study", "base"],
        "properties": {
            "study": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
            "base": base,
            "axes": axes,
            "zip": {"oneOf": [axes, {"type": "array", "items": axes}]},
            "when": {"type": "object", "additionalProperties": {"type": "string"}},
            "exclude": _TEXTS,
            "seeds": _seeds(),
            "objectives": _objectives(),
            "search": _search(),
            "resources": _resources(),
            "retry": _retry(),
            "artifacts": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"keep": {"enum": list(KEEP), "default": "all"}},
            },
        },
    }


def _seeds() -> Schema:
    whole: Schema = {"type": "integer", "minimum": 0}
    return {
        "oneOf": [
            {"type": "integer", "minimum": 1},
            {"type": "array", "items": whole, "uniqueItems": True, "minItems": 1},
        ]
    }


def _objectives() -> Schema:
    directions: Schema = {"enum": ["max", "min"]}
    tolerance: Schema = {"type": ["number", "string"]}
    tolerant: Schema = {
        "type": "object",
        "properties": {"max": tolerance, "min": tolerance},
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"type": "object", "minProperties": 1, "additionalProperties": {"oneOf": [directions, tolerant]}}


def _search() -> Schema:
    properties: Schema = {
        "name": {"enum": list(SEARCH_NAMES)},
        "trials": {"type": "integer", "minimum": 1},
        "seed": {"type": "integer", "minimum": 0},
        "repeats": {"enum": list(REPEATS)},
        "where": {"oneOf": [{"type": "string"}, _TEXTS]},
        "rungs": _rungs(),
        "first": {"oneOf": [{"const": "grid"}, {"type": "object", "additionalProperties": {"type": "array"}}]},
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _rungs() -> Schema:
    share: Schema = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    properties: Schema = {"on": _objectives(), "at": {"type": "array", "items": share, "minItems": 1}, "keep": share}
    return {"type": "object", "additionalProperties": False, "required": ["on", "at"], "properties": properties}


def _resources() -> Schema:
    amount: Schema = {"type": ["string", "null"], "examples": ["2GiB"]}
    demand: Schema = {
        "cpus": {"type": "integer", "minimum": 1},
        "gpus": {"oneOf": [{"type": "number", "minimum": 0}, {"const": "auto"}]},
        "memory": amount,
        "device": {"enum": list(DEVICES)},
        "timeout": {"type": ["string", "number", "null"], "examples": ["30min"]},
    }
    kinds: Schema = {kind: {"type": "object", "additionalProperties": False, "properties": demand} for kind in KINDS}
    return {"type": "object", "additionalProperties": False, "properties": {**demand, **kinds}}


def _retry() -> Schema:
    times: Schema = {"type": "integer", "minimum": 0}
    properties: Schema = dict.fromkeys(RETRIES, times) | {"diverged": {"const": 0}}
    for name, leaf, item in (("oom", "memory", "string"), ("timeout", "after", ["string", "number"])):
        steps: Schema = {"type": "array", "items": {"type": item}, "minItems": 1}
        ladder: Schema = {
            "type": "object", "additionalProperties": False, "required": [leaf], "properties": {leaf: steps},
        }  # fmt: skip
        properties[name] = {"oneOf": [times, ladder]}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _leaf_schemas(facts: SectionFacts) -> Schema:
    """Leaf -> schema; a leaf of several methods takes the first's, which bounds it alike."""
    found: Schema = {}
    for owner in facts.classes.values():
        properties = cast("Mapping[str, Schema]", owner.model_json_schema()["properties"])
        for name, schema in properties.items():
            if not schema.get("readOnly"):
                found.setdefault(name, dict(schema))
    if facts.tag:
        found[facts.tag] = {"enum": list(facts.classes), "description": "which method"}
    if PIPELINE in facts.classes:
        found["steps"] = _steps(str(found["steps"]["description"]))
    return found


def _steps(description: str) -> Schema:
    return {
        "type": "object", "additionalProperties": False, "description": description,
        "patternProperties": {r"^[1-9]_\w+$": {"$ref": "#/$defs/step"}},
    }  # fmt: skip


def _step(compress: SectionFacts) -> Schema:
    return {
        "type": "object", "additionalProperties": False, "required": [compress.tag],
        "properties": _leaf_schemas(step_facts(compress)),
    }  # fmt: skip


def _section(facts: SectionFacts) -> Schema:
    known: Schema = {"type": "object", "additionalProperties": False, "properties": _leaf_schemas(facts)}
    return known if facts.required else {"oneOf": [known, {"type": "null"}]}


def _varied(facts: Mapping[str, SectionFacts]) -> dict[str, SectionFacts]:
    return {name: found for name, found in facts.items() if name not in OBSERVED}


def _leaves(facts: Mapping[str, SectionFacts]) -> Schema:
    leaves = {
        f"{name}.{leaf}": schema for name, found in facts.items() for leaf, schema in _leaf_schemas(found).items()
    }
    return {**leaves, **{name: _section(found) for name, found in facts.items()}}


def _axis(leaf: Schema) -> Schema:
    pair: Schema = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
    forms: Schema = {
        "range": {"type": "array", "items": _NUMBER, "minItems": 3, "maxItems": 3},
        **dict.fromkeys(("uniform", "loguniform", "int_uniform"), pair),
    }
    drawn: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": forms,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"oneOf": [{"type": "array", "items": leaf, "minItems": 1}, drawn]}
