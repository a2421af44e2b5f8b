"""Answers with an open file, or the part of it that a request's headers ask for."""

from __future__ import annotations

import hashlib
from email.utils import formatdate
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response

from api.etags import matches
from api.log_range import Span, Unsatisfiable, parse_range
from api.output_response import OutputResponse
from api.problems import RANGE_NOT_SATISFIABLE, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.job_files import OpenedFile


class Conditions(NamedTuple):
    """The headers of a request that decide how much of a file is sent."""

    if_none_match: str | None
    range_: str | None = None
    if_range: str | None = None


def file_answer(
    file: OpenedFile, asked: Conditions, headers: Mapping[str, str], *, media_type: str
) -> Response:
    """The answer that sends the file and closes it, or one that needs it no more.

    Raises Problem (416), and leaves the file open.
    """
    size, etag = file.size_bytes, file_etag(file)
    cached = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if asked.if_none_match is not None and matches(asked.if_none_match, etag):
        file.close()
        # With a policy as the file's: a browser puts the headers of a 304 in the place of those it has kept.
        return Response(status_code=304, headers={**cached, **headers})
    sent = {**cached, "Last-Modified": _http_date(file.modified_ns), "Accept-Ranges": "bytes", **headers}
    span, status = Span(0, size), 200
    if asked.if_range is None or (asked.if_range == etag and not etag.startswith("W/")):
        try:
            ranged = parse_range(asked.range_, size, None)
        except Unsatisfiable:
            raise Problem(
                RANGE_NOT_SATISFIABLE,
                f"The file has {size} bytes; none lie in this range.",
                headers={"Content-Range": f"bytes */{size}"},
            ) from None
        if ranged is not None:
            span, status = ranged, 206
            sent["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return OutputResponse(file, span, status=status, headers=sent, media_type=media_type)


def file_etag(file: OpenedFile) -> str:
    """Weak while another change could leave the same facts."""
    tag = hashlib.blake2b(repr(file.facts).encode(), digest_size=12).hexdigest()
    return f'"{tag}"' if file.is_settled else f'W/"{tag}"'


def _http_date(ns: int) -> str:
    """A job may set any time, also one that no date can tell."""
    return formatdate(min(max(ns / 1e9, 0), 253_402_300_799), usegmt=True)
