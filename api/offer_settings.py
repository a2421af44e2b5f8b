"""The settings that say which of Snakemake's own means a job's options may name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, get_args

from pydantic import AfterValidator, Field

from runner.settings import SoftwareDeployment

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_METHODS: Final[tuple[SoftwareDeployment, ...]] = get_args(SoftwareDeployment)


def names(value: str | None) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name for each in (value or "").split(",") if (name := each.strip()))


def software(value: str | None) -> tuple[SoftwareDeployment, ...]:
    """The ways to get software that are named."""
    return tuple(method for method in _METHODS if method in names(value))


def _are_executors(value: str) -> str:
    for name in names(value):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name} is no name of an executor")
    return value


def _are_methods(value: str) -> str:
    for name in names(value):
        if name not in _METHODS:
            raise ValueError(f"{name} is none of {', '.join(_METHODS)}")
    return value


def _is_a_folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("it is no folder")
    return value.absolute()


ProfilesDir = Annotated[
    Annotated[Path, AfterValidator(_is_a_folder)] | None,
    Field(description="Snakemake profiles that jobs may name, one folder each."),
]
Executors = Annotated[
    str,
    AfterValidator(_are_executors),
    Field(description="Snakemake executors that jobs may name, separated by commas."),
]
Software = Annotated[
    Annotated[str, AfterValidator(_are_methods)] | None,
    Field(
        description="How rules may get their software: `conda`, `apptainer`, `env-modules`, separated by "
        "commas."
    ),
]
