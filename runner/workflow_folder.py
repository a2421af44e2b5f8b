"""Reads what a workflow's folder says of itself: Snakefile, README, parameter schema, `snakeline.toml`."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runner.parameter_schema import ParameterSchema, UnusableSchema
from runner.ports import AttachmentRules, Workflow

if TYPE_CHECKING:
    from pathlib import Path

SNAKEFILES: Final = ("Snakefile", "workflow/Snakefile")
SCHEMA: Final = "parameters.schema.json"
README: Final = "README.md"
OPTIONS: Final = "snakeline.toml"
PARTS: Final = (*SNAKEFILES, SCHEMA, README, OPTIONS)
_SCHEMA_BYTES: Final = 2**20
_OPTIONS_BYTES: Final = 4096  # tomllib takes half a minute for 64 KiB of dots
_TEXT_BYTES: Final = 64 * 2**10
_MAX_DESCRIPTION: Final = 500
_MOST_FILES: Final = 10_000
_USUAL_FILES: Final = 1_000
_ATTACHMENT_KEYS: Final = frozenset({"max_mb", "max_files", "names", "unpack"})


class UnusableWorkflow(Exception):
    """A folder that looks like a workflow cannot be offered: `file` is the reason, the text says why."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(reason)
        self.file = file


def snakefile_in(folder: Path) -> str | None:
    return next((path for path in SNAKEFILES if (folder / path).is_file()), None)


def read_workflow(name: str, folder: Path, *, max_bytes: int, commit: str | None = None) -> Workflow | None:
    """The workflow in a folder, None where there is no Snakefile. Raises UnusableWorkflow.

    Attachments take at most `max_bytes`, whatever the folder says; 0 switches them off.
    """
    snakefile = snakefile_in(folder)
    if snakefile is None:
        return None
    document = _read_schema(folder / SCHEMA)
    try:
        rules = None if document is None else ParameterSchema(document)
    except UnusableSchema as error:
        raise UnusableWorkflow(SCHEMA, str(error)) from error
    readme = _text(folder / README)
    return Workflow(
        name=name,
        folder=folder,
        snakefile=snakefile,
        description=_description(readme or "", _text(folder / snakefile) or ""),
        parameters_schema=document,
        rules=rules,
        readme=readme,
        attachments=_read_attachments(folder / OPTIONS, max_bytes),
        commit=commit,
    )


def read_brought_workflow(name: str, folder: Path, *, max_bytes: int) -> Workflow | None:
    """A workflow that a caller has brought: no regular expression of a stranger's is ever evaluated here.

    So its schema says nothing, and of its attachments only how many and how large they may be, and whether
    they are unpacked. None where there is no Snakefile. Raises UnusableWorkflow.
    """
    snakefile = snakefile_in(folder)
    if snakefile is None:
        return None
    rules = _read_attachments(folder / OPTIONS, max_bytes)
    attachments = AttachmentRules(max_bytes, _USUAL_FILES) if rules is None else replace(rules, names=None)
    return Workflow(name, folder, snakefile, "", None, attachments=attachments)


def _read_schema(path: Path) -> dict[str, Any] | None:
    data = _small_file(path, _SCHEMA_BYTES)
    if data is None:
        return None
    try:
        schema = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnusableWorkflow(SCHEMA, f"it is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UnusableWorkflow(SCHEMA, "it is not a JSON object")
    return schema


def _read_attachments(path: Path, most_bytes: int) -> AttachmentRules | None:
    """The table `[attachments]`: that it is there switches them on."""
    data = _small_file(path, _OPTIONS_BYTES)
    if data is None:
        return None
    try:
        raw = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UnusableWorkflow(OPTIONS, f"it is not TOML: {error}") from error
    if unknown := sorted(raw.keys() - {"attachments"}):
        raise UnusableWorkflow(OPTIONS, f"{unknown[0]!r} is unknown; known: attachments")
    table = raw.get("attachments")
    if table is None:
        return None
    rules = _attachment_rules(table, most_bytes)
    return rules if most_bytes else None


def _attachment_rules(table: Any, most_bytes: int) -> AttachmentRules:
    if not isinstance(table, dict):
        raise UnusableWorkflow(OPTIONS, "attachments: it is not a table")
    if unknown := sorted(table.keys() - _ATTACHMENT_KEYS):
        raise UnusableWorkflow(
            OPTIONS, f"attachments: {unknown[0]!r} is unknown; known: {', '.join(sorted(_ATTACHMENT_KEYS))}"
        )
    max_mb, max_files = table.get("max_mb"), table.get("max_files", _USUAL_FILES)
    names, unpack = table.get("names"), table.get("unpack", False)
    if max_mb is not None and (type(max_mb) not in (int, float) or not 0 < max_mb < 2**40):
        raise UnusableWorkflow(OPTIONS, "attachments: `max_mb` must be a number above 0")
    if type(max_files) is not int or not 0 < max_files <= _MOST_FILES:
        raise UnusableWorkflow(
            OPTIONS, f"attachments: `max_files` must be a whole number from 1 to {_MOST_FILES}"
        )
    if names is not None:
        if not isinstance(names, str):
            raise UnusableWorkflow(OPTIONS, "attachments: `names` must be a regular expression, as text")
        try:
            re.compile(names)
        except (re.error, OverflowError, RecursionError) as error:
            raise UnusableWorkflow(
                OPTIONS, f"attachments: `names` is no regular expression: {error}"
            ) from error
    if not isinstance(unpack, bool):
        raise UnusableWorkflow(OPTIONS, "attachments: `unpack` must be true or false")
    max_bytes = most_bytes if max_mb is None else min(int(max_mb * 2**20), most_bytes)
    return AttachmentRules(max_bytes, max_files, names, unpack)


def _small_file(path: Path, limit_bytes: int) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableWorkflow(path.name, f"it cannot be read: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise UnusableWorkflow(path.name, f"it is larger than {limit_bytes} bytes")
    return data


def _text(path: Path) -> str | None:
    """Its first part, None when there is no such file that could be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_TEXT_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _description(readme: str, snakefile: str) -> str:
    """The first paragraph of the README, or else the comment at the top of the Snakefile."""
    paragraphs = [line.strip() for line in readme.splitlines() if not line.strip().startswith("#")]
    comment = [
        line.lstrip("#").strip() if line.startswith("#") and not line.startswith("#!") else ""
        for line in snakefile.splitlines()
    ]
    for lines in (paragraphs, comment):
        if paragraph := _first_paragraph(lines):
            return paragraph[:_MAX_DESCRIPTION]
    return ""


def _first_paragraph(lines: list[str]) -> str:
    start = next((index for index, line in enumerate(lines) if line), None)
    if start is None:
        return ""
    end = next((index for index in range(start, len(lines)) if not lines[index]), len(lines))
    return " ".join(lines[start:end])
