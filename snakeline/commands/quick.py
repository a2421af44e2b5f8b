"""Texts, numbers and switches read without what typer needs for everything else.

Typer reads arguments by Pydantic, which takes longer to load than typer itself. Most of ours need none of it;
whatever is not plainly right is left to typer, which says what is wrong. How it does that is no part of what
typer promises: any other than the version known here reads all of them itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

_IS_KNOWN: Final = typer.__version__.startswith("0.29.")
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,14}")


class QuickCommand(TyperCommand):
    """A command whose parameters are read so."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _quickened(super().get_params(ctx))


class QuickGroup(TyperGroup):
    """The same of a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _quickened(super().get_params(ctx))


def _quickened(parameters: list[Any]) -> list[Any]:
    for each in parameters if _IS_KNOWN else ():
        if each._runtime_param is None:  # noqa: SLF001
            each._runtime_param = _Quick()  # noqa: SLF001
    return parameters


class _Quick:
    """In the place of typer's own reading of one parameter."""

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        is_right, read = _read(value, param)
        if is_right:
            return read
        param._runtime_param = None  # noqa: SLF001
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _read(value: Any, param: Any) -> tuple[bool, Any]:
    annotation, told = param.type_descriptor.annotation, param.type_descriptor.parameter_info
    if getattr(told, "parser", None) is not None:
        return False, None
    if value is None:
        return True, () if param.multiple or param.nargs == -1 else None
    if annotation in (str, bool):
        return type(value) is annotation, value
    if annotation == list[str]:
        return isinstance(value, list | tuple) and all(type(each) is str for each in value), value
    if annotation is int and type(value) is str and _NUMBER.fullmatch(value) and not told.clamp:
        value = int(value)
    if annotation is int and type(value) is int:
        least, most = told.min, told.max
        return (least is None or value >= least) and (most is None or value <= most), value
    return False, None
