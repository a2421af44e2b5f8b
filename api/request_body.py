"""Reads a request's body as JSON, once, and refuses what must not get any further."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from api.problems import (
    BODY_INCOMPLETE,
    BODY_TOO_SLOW,
    MALFORMED_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    invalid_fields,
    json_pointer,
    message,
)
from runner.errors import ShuttingDown

if TYPE_CHECKING:
    from starlette.requests import Request

    from api.waiting import StopSignal

MAX_DEPTH = 64
BODY_TIMEOUT_S = 30.0
_MAX_INTEGER_BITS = 1024

M = TypeVar("M", bound=BaseModel)


async def read_model(request: Request, model: type[M], stop: StopSignal) -> M:
    """The body as `model`. Raises Problem: 400, 408, 413, 415 or 422 with a pointer for each field.

    Raises ShuttingDown when the service stops before the body is there.
    """
    _check_content_type(request.headers.get("content-type", ""))
    check_content_encoding(request.headers.get("content-encoding", ""))
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S) as limit:
            with stop.calling(partial(limit.reschedule, 0)):
                body = await request.body()
    except ClientDisconnect:
        # Nobody is left to read this; the log's line has it.
        raise Problem(BODY_INCOMPLETE, "The connection ended before the body did.") from None
    except TimeoutError:
        if stop.is_set:
            raise ShuttingDown from None
        raise Problem(
            BODY_TOO_SLOW,
            f"The body must arrive within {BODY_TIMEOUT_S:g} s.",
            headers={"Connection": "close"},
        ) from None
    return parse_model(body, model)


def parse_model(body: bytes, model: type[M]) -> M:
    """Strict JSON as `model`: no NaN, no lone surrogates, nothing behind the value. Raises Problem."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(MALFORMED_JSON, f"The body is not valid JSON: {error}.") from None
    _check_values(value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = tuple(
            {"pointer": json_pointer(item["loc"]), "detail": message(item)}
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
    raise invalid_fields(found)


def _check_content_type(value: str) -> None:
    media_type, _, parameters = value.lower().partition(";")
    media_type = media_type.strip()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    charset = [
        p.split("=", 1)[1].strip(' "') for p in parameters.split(";") if p.strip().startswith("charset=")
    ]
    if not is_json or any(name not in ("utf-8", "utf8", "us-ascii") for name in charset):
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE,
            "Send the body as JSON in UTF-8, with the header Content-Type: application/json.",
            headers={"Accept": "application/json"},
        )


def check_content_encoding(value: str) -> None:
    """Raises Problem."""
    if value.strip().lower() not in ("", "identity"):
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE,
            "Send the body as it is, without Content-Encoding.",
            headers={"Accept-Encoding": "identity"},
        )


def _check_values(root: Any) -> None:
    """Refuse NUL in any text, numbers out of range, and nesting deeper than `MAX_DEPTH`."""
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(root, ())]
    while stack:
        value, path = stack.pop()
        if len(path) > MAX_DEPTH:
            raise invalid_fields(_at(path[:MAX_DEPTH], f"is nested more than {MAX_DEPTH} levels deep"))
        if isinstance(value, dict):
            if any("\x00" in key for key in value):
                raise invalid_fields(_at(path, "must not have a key with the character NUL"))
            stack.extend((item, (*path, key)) for key, item in value.items())
        elif isinstance(value, list):
            stack.extend((item, (*path, index)) for index, item in enumerate(value))
        elif isinstance(value, str):
            if "\x00" in value:
                raise invalid_fields(_at(path, "must not contain the character NUL"))
        elif _is_out_of_range(value):
            raise invalid_fields(_at(path, "is too large a number"))


def _is_out_of_range(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS


def _at(path: tuple[str | int, ...], detail: str) -> tuple[dict[str, str], ...]:
    return ({"pointer": json_pointer(path), "detail": detail},)
