"""`/`: the page, a client of this interface like any other. Its files are the same for everybody."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Header, Request, Response
from starlette.exceptions import HTTPException

from api.auth_rules import IssuerUnavailable
from api.etags import matches
from api.page_files import page
from api.state import in_thread, state_of

if TYPE_CHECKING:
    from api.page_files import PageFile

router = APIRouter(include_in_schema=False)

# Only what is served from here; pictures that were fetched with a key are shown from memory. The browser
# itself refuses to make markup of a text, whatever a script asks for (trusted types).
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src {}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_OWN: Final = "'self'"
_NOT_KEPT: Final = "no-store"
_PATIENCE_S: Final = 1.0  # with an issuer that has never answered
_KEPT_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASKED_AGAIN: Final = "no-cache"


@router.get("/")
async def get_page(
    request: Request,
    *,
    if_none_match: Annotated[str | None, Header()] = None,
    accept_encoding: Annotated[str, Header()] = "",
) -> Response:
    current = await in_thread(page)
    sources = await _sources(request)
    policy = hashlib.blake2b(sources.encode(), digest_size=4).hexdigest()
    return _answer(
        current.index,
        # A browser that is told 304 may keep the policy it has.
        f'"{current.digest}-{policy}"',
        # An address with a query may have a code of the issuer's in it.
        _NOT_KEPT if request.scope["query_string"] else _ASKED_AGAIN,
        sources=sources,
        if_none_match=if_none_match,
        accept_encoding=accept_encoding,
    )


async def _sources(request: Request) -> str:
    """What the page's scripts may talk to: the service, and where people sign in at an issuer that, too."""
    offer = state_of(request).authenticator.sign_in
    if offer is None:
        return _OWN
    try:
        # Somebody who comes back from the issuer is not waited for: it is known by then.
        async with asyncio.timeout(_PATIENCE_S):
            return f"{_OWN} {await offer.source()}"
    except (IssuerUnavailable, TimeoutError):
        return _OWN


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
    file: PageFile,
    etag: str,
    caching: str,
    *,
    sources: str = _OWN,
    if_none_match: str | None,
    accept_encoding: str,
) -> Response:
    headers = {
        "Content-Security-Policy": _POLICY.format(sources),
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
