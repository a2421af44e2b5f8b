"""What a request says of its caller: an API key or a bearer token, in a header and nowhere else."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from api.problems import CREDENTIALS_UNCLEAR, FOREIGN_NAME, FOREIGN_PAGE, KEY_IN_URL, Problem
from runner.key_texts import KEY_PATTERN

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import Scope

_MOST_BYTES: Final = 16 * 2**10
# Names by which other services take a key in the URL.
_NAME_IN_QUERY: Final = re.compile(
    rb"(?:^|&)(?:access_token|api[_-]?key|x-api-key|token|authorization)=", re.IGNORECASE
)
_KEY: Final = re.compile(KEY_PATTERN)
_PORT: Final = re.compile(r":[0-9]*$")
_BEARER: Final = re.compile(rb"Bearer +([\x21-\x7e]+)", re.IGNORECASE)


class NoCredentials(Exception):
    """The request does not say who calls."""


class UnusableCredentials(Exception):
    """The request says who calls in a way that cannot be right; the text, without the secret, says why."""


def credentials(scope: Scope) -> str:
    """The key or token of `Authorization: Bearer` or `X-API-Key`.

    Raises NoCredentials, UnusableCredentials; Problem (400) when both headers are there or one is twice.
    """
    found = [pair for pair in scope["headers"] if pair[0] in (b"authorization", b"x-api-key")]
    if not found:
        raise NoCredentials
    if len(found) > 1:
        raise Problem(CREDENTIALS_UNCLEAR, "Send one of Authorization and X-API-Key, and send it once.")
    name, value = found[0]
    if len(value) > _MOST_BYTES:
        raise UnusableCredentials("it is too long")
    if name == b"authorization":
        bearer = _BEARER.fullmatch(value)
        if bearer is None:
            raise UnusableCredentials("Authorization must be: Bearer, a space, and the key or token")
        value = bearer[1]
    try:
        text: str = value.decode("ascii")
    except UnicodeDecodeError:
        raise UnusableCredentials("it is not ASCII") from None
    return text


def refuse_foreign_name(scope: Scope) -> None:
    """Raises Problem (403) where the request was sent to a public name instead of to this machine.

    A web page anywhere may let its own name lead to 127.0.0.1 and then call us from its reader's browser
    (DNS rebinding). Such a name has a dot; an address, `localhost` and names of the local network lead
    nobody here from outside.
    """
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    name = _PORT.sub("", host).rstrip(".").lower()
    if "." not in name or name.endswith(".localhost") or _is_address(name.strip("[]")):
        return
    raise Problem(
        FOREIGN_NAME,
        "Nobody has to log in here, so only this machine's own names are answered: localhost, 127.0.0.1. "
        "Behind a proxy that asks who calls, set SNAKELINE_AUTH=none.",
    )


def refuse_foreign_page(scope: Scope, origins: Collection[str]) -> None:
    """Raises Problem (403) where a browser says that a page of another site asks for a change.

    It sends a form's POST without asking first (CSRF), and where nobody has to log in nothing else would
    tell it from its reader's own. `origins` are those that the operator lets in.
    """
    if scope["method"] in ("GET", "HEAD"):
        return
    told = {name: value for name, value in scope["headers"] if name in (b"sec-fetch-site", b"origin")}
    is_foreign = told.get(b"sec-fetch-site") == b"cross-site"
    if is_foreign and told.get(b"origin", b"").decode("latin-1") not in origins:
        raise Problem(
            FOREIGN_PAGE, "The request comes from a page of another site: see SNAKELINE_CORS_ORIGINS."
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def refuse_key_in_url(scope: Scope) -> None:
    """Raises Problem (400): addresses end up in logs and histories, so a key there is no secret any more."""
    query: bytes = scope["query_string"]
    named = query and _NAME_IN_QUERY.search(query)
    if named or _KEY.search(scope["path"]) or (query and _KEY.search(unquote(query.decode("latin-1")))):
        raise Problem(
            KEY_IN_URL,
            "A key must not stand in an address, which logs and browsers keep: revoke this one and send "
            "the next in the header Authorization: Bearer, or X-API-Key.",
        )
