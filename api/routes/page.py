"""`/`: the page, a client of this interface like any other. Its files are the same for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Header, Response
from starlette.exceptions import HTTPException

from api.etags import matches
from api.page_files import page
from api.state import in_thread

if TYPE_CHECKING:
    from api.page_files import PageFile

router = APIRouter(include_in_schema=False)

# Only what is served from here; pictures that were fetched with a key are shown from memory. The browser
# itself refuses to make markup of a text, whatever a script asks for (trusted types).
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_KEPT_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASKED_AGAIN: Final = "no-cache"


@router.get("/")
async def get_page(
    *,
    if_none_match: Annotated[str | None, Header()] = None,
    accept_encoding: Annotated[str, Header()] = "",
) -> Response:
    current = await in_thread(page)
    return _answer(
        current.index,
        f'"{current.digest}"',
        _ASKED_AGAIN,
        if_none_match=if_none_match,
        accept_encoding=accept_encoding,
    )


@router.get("/page/{digest}/{name}")
async def get_page_file(
    digest: str,
    name: str,
    *,
    if_none_match: Annotated[str | None, Header()] = None,
    accept_encoding: Annotated[str, Header()] = "",
) -> Response:
    """One of its files. A page of an earlier release, still open, gets those of this one."""
    current = await in_thread(page)
    file = current.files.get(name)
    if file is None:
        raise HTTPException(404)
    return _answer(
        file,
        f'"{current.digest}"',
        _KEPT_FOR_EVER if digest == current.digest else _ASKED_AGAIN,
        if_none_match=if_none_match,
        accept_encoding=accept_encoding,
    )


def _answer(
    file: PageFile, etag: str, caching: str, *, if_none_match: str | None, accept_encoding: str
) -> Response:
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": caching,
        "ETag": etag,
        "Vary": "Accept-Encoding",
    }
    if if_none_match is not None and matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    if _takes_gzip(accept_encoding):
        return Response(file.packed, 200, {**headers, "Content-Encoding": "gzip"}, file.media_type)
    return Response(file.content, 200, headers, file.media_type)


def _takes_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
