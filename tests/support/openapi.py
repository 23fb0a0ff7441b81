"""A check of values by a structural schema of Kubernetes: the part of OpenAPI that its resources use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}


def faults(value: Any, schema: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yields what is wrong with a value; a field that the schema does not name is wrong, as `kubectl` has it.

    Args:
        value: Value as YAML gives it.
        schema: Schema of the value.
        place: Path of the value, for messages.
    """
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield f"{place}: {value!r} is neither a number nor a text"
        elif "pattern" in schema and not re.search(schema["pattern"], str(value)):
            yield f"{place}: {value!r} does not match {schema['pattern']}"
        return
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{place}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], str(value)):
        yield f"{place}: {value!r} does not match {schema['pattern']}"
    for name, wrong in (
        ("minimum", lambda bound: value < bound),
        ("maximum", lambda bound: value > bound),
        ("maxLength", lambda bound: len(value) > bound),
        ("minLength", lambda bound: len(value) < bound),
        ("maxItems", lambda bound: len(value) > bound),
    ):
        if name in schema and wrong(schema[name]):
            yield f"{place}: {value!r} is beyond {name} {schema[name]}"
    if isinstance(value, dict):
        yield from _of_object(value, schema, place)
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from faults(each, schema.get("items", {}), f"{place}[{number}]")


def _of_object(value: Mapping[str, Any], schema: Mapping[str, Any], place: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}: {name} is missing"
    known, others = schema.get("properties"), schema.get("additionalProperties")
    for name, each in value.items():
        if known and name in known:
            yield from faults(each, known[name], f"{place}.{name}")
        elif others is not None:
            yield from faults(each, others, f"{place}.{name}")
        elif known:
            yield f"{place}: there is no field {name}"
