"""Who calls: from a request's headers to a `Caller`, or the problem that it is refused with."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from api.auth_credentials import (
    NoCredentials,
    UnusableCredentials,
    credentials,
    refuse_foreign_name,
    refuse_foreign_page,
    refuse_key_in_url,
)
from api.auth_failures import FailureLimit
from api.auth_keys import KeyRing
from api.auth_rules import InvalidToken, IssuerUnavailable
from api.problems import (
    CREDENTIALS_INVALID,
    CREDENTIALS_MISSING,
    ISSUER_UNAVAILABLE,
    SCOPE_MISSING,
    TOO_MANY_FAILURES,
    Problem,
    request_id,
)
from api.sign_in import SignIn
from api.trace_headers import arrival
from runner.access import OPERATOR
from runner.key_texts import looks_like_a_key, split_key_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from starlette.requests import Request

    from api.auth_issuer import IssuerKeys
    from api.auth_rules import TokenRules
    from api.auth_settings import AuthMode
    from api.auth_tokens import Tokens
    from api.sign_in import SignInRules
    from runner.access import Caller, Scope
    from runner.access_store import AccessStore

_REALM = 'Bearer realm="snakeline"'

_log = structlog.get_logger("api.authentication")


class Authenticator:
    """Tells callers by API keys, and in the mode `oidc` by an issuer's tokens as well.

    In the mode `none` everybody is the operator, whatever they send. Refusals are counted per client and
    logged without the secret; beyond the limit they are 429 and not logged. Good credentials are never
    refused for others' failures.
    """

    def __init__(
        self,
        mode: AuthMode,
        store: AccessStore,
        rules: TokenRules | None = None,
        *,
        sign_in: SignInRules | None = None,
        own_names_only: bool = False,
        origins: Collection[str] = (),
        refused: Counter[str] | None = None,
    ) -> None:
        """In the mode `none` with `own_names_only`, only requests to names of this machine are let in.

        Of the pages of other sites only those of `origins` change anything there.
        `refused` counts what is refused, by its type, for the metrics.
        """
        assert (mode == "oidc") == (rules is not None)
        self.mode = mode
        self._own_names_only = own_names_only
        self._origins = origins
        self._refusals = Counter() if refused is None else refused
        self._keys = KeyRing(store)
        self._failures = FailureLimit()
        self._issuer: IssuerKeys | None = None
        self._tokens: Tokens | None = None
        self.sign_in: SignIn | None = None
        if rules is not None:
            # Here, because it takes 10 MB that only those who use it should pay for.
            from api.auth_issuer import IssuerKeys  # noqa: PLC0415
            from api.auth_tokens import Tokens  # noqa: PLC0415

            self._issuer = IssuerKeys(rules.issuer, rules.algorithms)
            self._tokens = Tokens(rules, self._issuer)
            if sign_in is not None:
                self.sign_in = SignIn(sign_in, self._issuer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For as long as requests are answered."""
        if self._issuer is not None:
            self._issuer.prefetch()
        try:
            yield
        finally:
            if self._issuer is not None:
                await self._issuer.close()

    @property
    def is_open(self) -> bool:
        """Whether nobody has to say who they are."""
        return self.mode == "none"

    async def caller(self, request: Request) -> Caller:
        """Who sent this request. Raises Problem: 400, 401, 429, 503; StoreUnavailable."""
        refuse_key_in_url(request.scope)
        address = request.client.host if request.client is not None else None
        if self.is_open:
            if self._own_names_only:
                refuse_foreign_name(request.scope)
            refuse_foreign_page(request.scope, self._origins)
            return _asking(OPERATOR, address)
        try:
            given = credentials(request.scope)
        except NoCredentials:
            self._refusals[CREDENTIALS_MISSING.slug] += 1
            raise _unauthorized(Problem(CREDENTIALS_MISSING, self._what_to_send), error=None) from None
        except UnusableCredentials as error:
            raise self._refused(f"The credentials cannot be used: {error}.", address, None) from None
        return _asking(await self._caller_of(given, address), address)

    async def visitor(self, request: Request) -> Caller | None:
        """As `caller`, but None for one who does not say who they are; in the mode `none`, who is refused."""
        if self.is_open:
            try:
                return await self.caller(request)
            except Problem:
                return None
        if not any(name in (b"authorization", b"x-api-key") for name, _ in request.scope["headers"]):
            return None
        return await self.caller(request)

    @property
    def _what_to_send(self) -> str:
        or_token = " or a token" if self.mode == "oidc" else ""
        return f"Send an API key{or_token} in the header Authorization: Bearer, or a key in X-API-Key."

    async def _caller_of(self, given: str, address: str | None) -> Caller:
        if self._tokens is None or looks_like_a_key(given):
            key = await self._keys.find(given)
            if key is None:
                parts = split_key_text(given)
                detail = "The API key is unknown, revoked, expired or mistyped."
                raise self._refused(detail, address, None if parts is None else parts[0])
            return key.caller()
        try:
            return await self._tokens.caller(given)
        except InvalidToken as error:
            raise self._refused(f"The token is not accepted. {error}", address, None) from None
        except IssuerUnavailable as error:
            raise Problem(
                ISSUER_UNAVAILABLE,
                "The issuer of tokens does not give its keys now. API keys are not affected.",
                headers={"Retry-After": str(error.retry_after_s)},
            ) from None

    def _refused(self, detail: str, address: str | None, prefix: str | None) -> Problem:
        wait_s = self._failures.failed(address)
        if wait_s > 0:
            self._refusals[TOO_MANY_FAILURES.slug] += 1
            return Problem(
                TOO_MANY_FAILURES,
                "Too many keys or tokens from this address were refused: see to them, then try again.",
                headers={"Retry-After": str(wait_s)},
            )
        self._refusals[CREDENTIALS_INVALID.slug] += 1
        _log.warning("authentication.refused", client=address, reason=detail, key=prefix)
        return _unauthorized(Problem(CREDENTIALS_INVALID, detail), error="invalid_token")


def _asking(caller: Caller, address: str | None) -> Caller:
    """The caller, with what is known of the request."""
    came = arrival.get()
    return replace(caller, address=address, request_id=request_id.get(), asked_at=came.at, trace=came.trace)


def require(caller: Caller, scope: Scope) -> None:
    """Raises Problem (403), naming the scope that is missing."""
    if scope not in caller.scopes:
        raise Problem(
            SCOPE_MISSING,
            f"This needs the scope {scope.value}; yours: "
            f"{', '.join(sorted(each.value for each in caller.scopes)) or 'none'}.",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope.value}"'},
            members={"scope": scope.value},
        )


def _unauthorized(problem: Problem, *, error: str | None) -> Problem:
    """With the challenge that belongs to a 401 (RFC 9110; RFC 6750: no `error` where nothing was sent)."""
    described = "" if error is None else f', error="{error}", error_description="{_quotable(problem.detail)}"'
    problem.headers = {**(problem.headers or {}), "WWW-Authenticate": _REALM + described}
    return problem


def _quotable(text: str) -> str:
    return "".join(c for c in text if " " <= c <= "~" and c not in '"\\')
