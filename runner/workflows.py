"""The registered workflows: one folder each, read from disk when it has changed."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from runner.errors import FieldError, WorkflowNotFound
from runner.ports import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError

_log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SNAKEFILES: Final = ("Snakefile", "workflow/Snakefile")
_SCHEMA: Final = "parameters.schema.json"
_README: Final = "README.md"
_PARTS: Final = (*_SNAKEFILES, _SCHEMA, _README)
_SCHEMA_BYTES: Final = 2**20
_TEXT_BYTES: Final = 16 * 2**10
_MAX_ERRORS: Final = 20
_MAX_DETAIL: Final = 300
_MAX_DESCRIPTION: Final = 500
_MAX_KEY: Final = 128


class UnusableWorkflow(Exception):
    """A folder that looks like a workflow cannot be offered; the text says why."""


@dataclass(frozen=True, slots=True)
class _Entry:
    signature: tuple[object, ...]
    workflow: Workflow | None  # None: it cannot be used
    validator: Draft202012Validator | None


class FolderRegistry:
    """Thread-safe. A new, changed or removed folder counts from the next call on, without a restart."""

    def __init__(self, workflows_dir: Path) -> None:
        self._root = workflows_dir.absolute()
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        try:
            with os.scandir(self._root) as folders:
                found = sorted(folder.name for folder in folders if _NAME.fullmatch(folder.name))
        except OSError as error:
            _log.warning("workflows.unreadable", path=str(self._root), error=error.strerror)
            return ()
        with self._lock:
            # Also names that callers have made up, which `get` has looked for.
            for gone in self._entries.keys() - set(found):
                del self._entries[gone]
        return tuple(name for name in found if self._current(name) is not None)

    def get(self, name: str) -> Workflow:
        """Raises WorkflowNotFound, also for a folder that cannot be used: the service's log says why."""
        entry = self._current(name) if _NAME.fullmatch(name) else None
        if entry is None or entry.workflow is None:
            raise WorkflowNotFound(name, self.names())
        return entry.workflow

    def validate(self, workflow: Workflow, parameters: Mapping[str, Any]) -> list[FieldError]:
        """What the schema says against the parameters: the first errors, pointers below /parameters."""
        entry = self._current(workflow.name)
        if entry is None or entry.validator is None:
            return []
        try:
            errors = entry.validator.iter_errors(dict(parameters))
            return list(islice(chain.from_iterable(map(_field_errors, errors)), _MAX_ERRORS))
        except RecursionError:
            return [FieldError("/parameters", "is nested too deeply")]

    def _current(self, name: str) -> _Entry | None:
        # Four stats for every submit: as plain text, which costs a third of what path objects do.
        folder = f"{self._root}/{name}"
        signature = tuple([_stamp(f"{folder}/{part}") for part in _PARTS])
        with self._lock:
            known = self._entries.get(name)
            if known is None or known.signature != signature:
                known = self._entries[name] = _read(name, Path(folder), signature)
        return known if known.workflow is not None else None


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
                yield FieldError(_pointer([*path, key]), detail[:_MAX_DETAIL])
        return
    yield FieldError(_pointer(path), error.message[:_MAX_DETAIL])


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)


def _read(name: str, folder: Path, signature: tuple[object, ...]) -> _Entry:
    snakefile = next((path for path in _SNAKEFILES if (folder / path).is_file()), None)
    if snakefile is None:
        return _Entry(signature, None, None)
    try:
        schema = _read_schema(folder / _SCHEMA)
        validator = None if schema is None else _validator(schema)
    except UnusableWorkflow as error:
        _log.error("workflow.left_out", workflow=name, file=_SCHEMA, reason=str(error))
        return _Entry(signature, None, None)
    return _Entry(
        signature, Workflow(name, folder, snakefile, _description(folder, snakefile), schema), validator
    )


def _read_schema(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_SCHEMA_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableWorkflow(f"it cannot be read: {error.strerror}") from error
    if len(data) > _SCHEMA_BYTES:
        raise UnusableWorkflow(f"it is larger than {_SCHEMA_BYTES} bytes")
    try:
        schema = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnusableWorkflow(f"it is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UnusableWorkflow("it is not a JSON object")
    return schema


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Raises UnusableWorkflow. References into the network are not followed."""
    try:
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(_ecma(schema), registry=Registry())
        for _ in validator.iter_errors({}):  # finds references that lead nowhere or round in a circle
            pass
    except SchemaError as error:
        raise UnusableWorkflow(f"it is no JSON Schema 2020-12: {error.message[:_MAX_DETAIL]}") from error
    except (Unresolvable, re.error, RecursionError) as error:
        raise UnusableWorkflow(
            f"it cannot be used: {type(error).__name__}: {str(error)[:_MAX_DETAIL]}"
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


def _description(folder: Path, snakefile: str) -> str:
    """The first paragraph of the README, or else the comment at the top of the Snakefile."""
    readme = [line.strip() for line in _text(folder / _README).splitlines()]
    comment = [
        line.lstrip("#").strip() if line.startswith("#") and not line.startswith("#!") else ""
        for line in _text(folder / snakefile).splitlines()
    ]
    for lines in ([line for line in readme if not line.startswith("#")], comment):
        if paragraph := _first_paragraph(lines):
            return paragraph[:_MAX_DESCRIPTION]
    return ""


def _first_paragraph(lines: list[str]) -> str:
    start = next((index for index, line in enumerate(lines) if line), None)
    if start is None:
        return ""
    end = next((index for index in range(start, len(lines)) if not lines[index]), len(lines))
    return " ".join(lines[start:end])


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_TEXT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _pointer(path: Any) -> str:
    parts = (str(part)[:_MAX_KEY].replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(["/parameters", *("/" + part for part in parts)])
