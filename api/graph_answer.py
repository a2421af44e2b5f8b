"""Answers with a rule graph, as JSON or as a picture."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json
from starlette.responses import Response

from api.accepts import accepts
from api.etags import matches
from api.graph_svg import CONTENT_POLICY, SVG, graph_svg
from api.representations import JSON
from api.state import in_thread
from api.task_documents import graph_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.tasks import RuleGraph


_POLICY: Final = {"Content-Security-Policy": CONTENT_POLICY}


def wants_svg(asked: str | None, accept: str) -> bool:
    """Whether the picture is asked for: by `format`, or else by an `Accept` that names it and not JSON."""
    if asked is not None:
        return asked == "svg"
    return accepts(accept, SVG) and not accepts(accept, JSON)


async def graph_answer(graph: RuleGraph, *, as_svg: bool, if_none_match: str | None) -> Response:
    """The graph, or 304 where the client has it: a picture is not even drawn then."""
    document = to_json(graph_document(graph))
    form = b"svg" if as_svg else b"json"
    etag = f'"{hashlib.blake2b(form + document, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Vary": "Accept"}
    if as_svg:
        headers |= _POLICY  # of a 304, too: a browser puts its headers in the place of those it has kept
    if if_none_match is not None and matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    if not as_svg:
        return Response(document, 200, headers, JSON)
    return await graph_picture(graph, headers)


async def graph_picture(graph: RuleGraph, headers: Mapping[str, str] | None = None) -> Response:
    """A picture that may be shown as an image, and that does nothing where it is opened by itself."""
    return Response(await in_thread(graph_svg, graph), 200, {**(headers or {}), **_POLICY}, SVG)
