"""The headers that every answer carries, so that a browser does nothing with it that is not meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_NOT_STORED = (b"cache-control", b"no-store")
_ASKED_AGAIN = (b"cache-control", b"private, no-cache")
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")


def security_headers(present: Iterable[tuple[bytes, bytes]], *, is_https: bool) -> Headers:
    """What to add to an answer that has the headers `present` (names in lower case).

    Its own policy and its own word on caching stand. What says nothing of caching is kept nowhere; where it
    has an ETag it may be kept, by this client alone, and is asked for again each time.
    """
    has_policy = has_caching = has_etag = False
    for name, _ in present:
        if name == b"content-security-policy":
            has_policy = True
        elif name == b"cache-control":
            has_caching = True
        elif name == b"etag":
            has_etag = True
    headers = _ALWAYS.copy()
    if not has_policy:
        headers.append(_POLICY)
    if not has_caching:
        headers.append(_ASKED_AGAIN if has_etag else _NOT_STORED)
    if is_https:
        headers.append(_HTTPS_ONLY)
    return headers
