"""Parameters as they are typed: `key=value`, `key:=JSON`, files of YAML or JSON."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WORDS: Final[Mapping[str, object]] = {"true": True, "false": False, "null": None}
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_KEY: Final = re.compile(r"[^=:]+")


class NotUnderstood(ValueError):
    """The text is one line that says what is wrong with an argument."""


def value_of(text: str) -> Any:
    """What a value means.

    JSON if it begins as an object, a list or a quoted text does; `true`, `false` and `null`; a number if that
    would be written just so again; else the text itself. So 7, -3 and 0.25 are numbers; 007, 1e3, 1.50 and +5
    are texts, and no identifier loses a digit. Raises NotUnderstood.
    """
    if text[:1] in ("{", "[", '"'):
        return _json(text)
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and text != "-0" and len(text) <= 300:
        return int(text)
    if _DECIMAL.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text


def pairs(arguments: Iterable[str], *, what: str) -> dict[str, Any]:
    """Each `key=value`, or `key:=JSON` where the value is always JSON. Raises NotUnderstood."""
    found: dict[str, Any] = {}
    for argument in arguments:
        key = _KEY.match(argument)
        rest = argument[key.end() :] if key else ""
        if key is None or not rest.startswith(("=", ":=")):
            raise NotUnderstood(f"{what}: {argument!r} is neither key=value nor key:=JSON")
        if key[0] in found:
            raise NotUnderstood(f"{what}: {key[0]!r} is given twice")
        try:
            found[key[0]] = _json(rest[2:]) if rest.startswith(":=") else value_of(rest[1:])
        except NotUnderstood as error:
            raise NotUnderstood(f"{what}: {key[0]}: {error}") from error
    return found


def texts(arguments: Iterable[str], *, what: str) -> dict[str, str]:
    """Each `key=value`, the value as it stands. Raises NotUnderstood."""
    found: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise NotUnderstood(f"{what}: {argument!r} is not key=value")
        if key in found:
            raise NotUnderstood(f"{what}: {key!r} is given twice")
        found[key] = value
    return found


def from_files(paths: Sequence[str]) -> dict[str, Any]:
    """The parameters in files of YAML or JSON; `-` is standard input.

    As with Snakemake's `--configfile`, a later one adds to an earlier one, object by object. Raises
    NotUnderstood.
    """
    found: dict[str, Any] = {}
    for path in paths:
        try:
            if path == "-":
                text = sys.stdin.read()
            else:
                with open(path, encoding="utf-8") as file:
                    text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise NotUnderstood(f"-f {path}: {getattr(error, 'strerror', None) or error}") from error
        document = _json(text, path) if path.endswith(".json") else _yaml(text, path)
        if document is None:
            continue
        if not isinstance(document, dict):
            raise NotUnderstood(f"-f {path}: holds no keys with values")
        _add(found, document)
    return found


def _add(to: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(to.get(key), dict):
            _add(to[key], value)
        else:
            to[key] = value


def _json(text: str, path: str | None = None) -> Any:
    def refuse(word: str) -> object:
        raise ValueError(f"{word} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        where = f"-f {path}: " if path else ""
        raise NotUnderstood(f"{where}{text[:60]!r} is no JSON: {error}") from error


def _yaml(text: str, path: str) -> Any:
    import yaml  # noqa: PLC0415 - for those alone who have such a file

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(text, Loader=loader)  # noqa: S506 - a safe one
        json.dumps(document, allow_nan=False)
    except yaml.YAMLError as error:
        raise NotUnderstood(f"-f {path}: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise NotUnderstood(f"-f {path}: a value has no form in JSON (dates need quotes): {error}") from error
    return document
