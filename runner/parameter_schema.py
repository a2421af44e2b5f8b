"""The JSON Schema of a workflow's parameters: what it refuses, and which defaults it has."""

from __future__ import annotations

import copy
import json
import re
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from runner.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema.protocols import Validator

MAX_DETAIL: Final = 300
_MAX_ERRORS: Final = 20
_MAX_KEY: Final = 128


class UnusableSchema(Exception):
    """The document is no schema that could be used; the text says why."""


class ParameterSchema:
    """The rules of one schema: see `ParameterRules` in runner/ports.py."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Raises UnusableSchema."""
        self.document = document
        self._validator = _validator(document)

    def errors(self, parameters: Mapping[str, Any]) -> list[FieldError]:
        try:
            errors = self._validator.iter_errors(dict(parameters))
            return list(islice(chain.from_iterable(map(_field_errors, errors)), _MAX_ERRORS))
        except RecursionError:
            return [FieldError("/parameters", "is nested too deeply")]

    def completed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults below `properties` count, at any depth; those behind `$ref`, `anyOf` and such do not."""
        return _completed(self.document, parameters)


def _completed(schema: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(value)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(inner, dict):
            continue
        if name not in result and "default" in inner:
            result[name] = copy.deepcopy(inner["default"])
        if isinstance(result.get(name), dict):
            result[name] = _completed(inner, result[name])
    return result


def _field_errors(error: ValidationError) -> Iterator[FieldError]:
    """One for each thing to mend: an unknown key is pointed at itself, not at what holds it."""
    path = list(error.absolute_path)
    schema, instance = error.schema, error.instance
    closed = error.validator == "additionalProperties" and error.validator_value is False
    if closed and isinstance(schema, dict) and isinstance(instance, dict):
        known = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        for key in instance:
            if key not in known and not any(re.search(pattern, key) for pattern in patterns):
                detail = f"is unknown; known: {', '.join(known) or 'none'}"
                yield FieldError(_pointer([*path, key]), detail[:MAX_DETAIL])
        return
    # Without the value, which may be a secret: the pointer says which it is.
    yield FieldError(_pointer(path), error.message.removeprefix(f"{instance!r} ")[:MAX_DETAIL])


def _unique_items(
    validator: Validator, wanted: object, instance: Any, _schema: object
) -> Iterator[ValidationError]:
    """As the library's, which compares each with each: an hour's work for a list that a request can hold."""
    if wanted is True and validator.is_type(instance, "array"):
        seen = set()
        for item in instance:
            text = json.dumps(_with_whole_numbers(item), sort_keys=True)
            if text in seen:
                yield ValidationError("has non-unique elements")
                return
            seen.add(text)


def _with_whole_numbers(value: Any) -> Any:
    """1.0 is 1 in JSON Schema."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_whole_numbers(item) for item in value]
        case dict():
            return {name: _with_whole_numbers(item) for name, item in value.items()}
        case _:
            return value


_Validator: Final[type[Validator]] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"uniqueItems": _unique_items}
)


def _validator(schema: dict[str, Any]) -> Validator:
    """Raises UnusableSchema. References into the network are not followed."""
    try:
        Draft202012Validator.check_schema(schema)
        validator = _Validator(_ecma(schema), registry=Registry())
        for _ in validator.iter_errors({}):  # finds references that lead nowhere or round in a circle
            pass
    except SchemaError as error:
        raise UnusableSchema(f"it is no JSON Schema 2020-12: {error.message[:MAX_DETAIL]}") from error
    except (Unresolvable, re.error, OverflowError, RecursionError) as error:
        raise UnusableSchema(
            f"it cannot be used: {type(error).__name__}: {str(error)[:MAX_DETAIL]}"
        ) from error
    return validator


# `$` in JSON Schema's regular expressions is the very end of the text; Python's also matches before a
# last newline, and these patterns guard what gets into shell commands.
_DOLLAR: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)
_DATA_KEYWORDS: Final = frozenset({"const", "enum", "default", "examples"})
_MAP_KEYWORDS: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)


def _ecma(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_ecma(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _DATA_KEYWORDS:
            result[key] = value
        elif key == "pattern" and isinstance(value, str):
            result[key] = _anchored(value)
        elif key in _MAP_KEYWORDS and isinstance(value, dict):
            rename = _anchored if key == "patternProperties" else str
            result[key] = {rename(name): _ecma(inner) for name, inner in value.items()}
        else:
            result[key] = _ecma(value)
    return result


def _anchored(pattern: str) -> str:
    anchored = _DOLLAR.sub(lambda found: r"\Z" if found[0] == "$" else found[0], pattern)
    re.compile(anchored)
    return anchored


def _pointer(path: Any) -> str:
    parts = (str(part)[:_MAX_KEY].replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(["/parameters", *("/" + part for part in parts)])
