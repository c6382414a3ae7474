"""JSON Schema, draft 4, as far as the schemas of the tests use it; an unknown word is an error."""

from __future__ import annotations

import re
from typing import Any

KNOWN = {
    *("$schema", "id", "title", "description", "definitions", "format"),
    *("type", "enum", "required", "properties", "additionalProperties", "items", "minItems"),
    *("uniqueItems", "minimum", "maximum", "pattern", "anyOf", "$ref"),
}
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def validate(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> None:
    """Fail unless *value* is as *schema* says."""
    assert set(schema) <= KNOWN, at
    if "$ref" in schema:
        target = root["definitions"][schema["$ref"].removeprefix("#/definitions/")]
        validate(value, target, root, at)
        return
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(is_a(value, kind) for kind in kinds), f"{at}: {value!r} is not {kinds}"
    assert value in schema.get("enum", [value]), at
    if "anyOf" in schema:
        assert any(fits(value, each, root) for each in schema["anyOf"]), at
    if isinstance(value, dict):
        validate_object(value, schema, root, at)
    elif isinstance(value, list):
        assert len(value) >= schema.get("minItems", 0), at
        if schema.get("uniqueItems"):
            assert len({repr(each) for each in value}) == len(value), at
        for number, each in enumerate(value):
            validate(each, schema.get("items", {}), root, f"{at}[{number}]")
    elif isinstance(value, str):
        assert re.search(schema.get("pattern", ""), value), f"{at}: {value!r}"
    elif isinstance(value, int):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), at


def validate_object(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str
) -> None:
    assert set(schema.get("required", ())) <= set(value), at
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    for name, each in value.items():
        assert name in known or more is not False, f"{at}.{name} is unknown"
        rule = known.get(name, more if isinstance(more, dict) else {})
        validate(each, rule, root, f"{at}.{name}")


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    try:
        validate(value, schema, root)
    except AssertionError:
        return False
    return True


def is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])
