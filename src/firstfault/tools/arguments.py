"""Whether the arguments that a model wrote fit the schema of a function."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_JSON_TYPES = {  # in this order: to Python, True is an int too
    "boolean": bool,
    "integer": int,
    "number": float,
    "string": str,
    "array": list,
    "object": dict,
    "null": type(None),
}


def check_arguments(arguments: Any, parameters: Schema) -> str | None:
    """What is wrong with the arguments of a call, in a few words; None if they fit.

    Checked: names, JSON types, `enum`, `anyOf`, `nullable` and the items of arrays, which is nearly all that type hints
    become. Not checked: the other words of JSON schema; a tool sees to those itself.

    >>> parameters = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    >>> check_arguments({"n": "5"}, parameters)
    "'n' must be integer, not string"
    """
    if not isinstance(arguments, dict):
        return f"arguments must be an object, not {_json_type(arguments)}"
    properties = parameters.get("properties", {})
    unknown = [str(name)[:40] for name in arguments if name not in properties]
    if unknown and not parameters.get("additionalProperties"):
        return f"unknown argument {unknown[0]!r}; arguments: {', '.join(properties) or 'none'}"
    missing = [name for name in parameters.get("required", ()) if name not in arguments]
    if missing:
        return f"missing argument {missing[0]!r}"
    for name, value in arguments.items():
        expected = _expected(value, properties.get(name, {}))
        if expected:
            found = _json_type(value)
            return f"{name!r} must be {expected}" + ("" if found in expected else f", not {found}")
    return None


def _expected(value: Any, schema: Schema) -> str | None:
    """What the schema asks for where `value` is something else; None where it fits."""
    if value is None and schema.get("nullable"):
        return None
    if "anyOf" in schema:
        expected = [_expected(value, option) for option in schema["anyOf"]]
        return None if None in expected else " or ".join(dict.fromkeys(expected))
    if "enum" in schema:
        return None if value in schema["enum"] else f"one of {', '.join(map(repr, schema['enum']))}"
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    found = _json_type(value)
    if types and found not in types and not (found == "integer" and "number" in types):
        return " or ".join(types)
    if isinstance(value, list):
        wrong = [_expected(item, schema.get("items", {})) for item in value]
        return next((f"{found} of {expected}" for expected in wrong if expected), None)
    return None


def _json_type(value: Any) -> str:
    return next((name for name, kind in _JSON_TYPES.items() if isinstance(value, kind)), type(value).__name__)
