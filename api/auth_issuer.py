"""What an OpenID Connect issuer says of itself, its signing keys above all: fetched when needed, and kept."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx2
import structlog
from anyio import to_thread
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from pydantic_core import from_json

from api.auth_rules import IssuerUnavailable, is_loopback, is_safe_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

VerifyingKey = RSAKey | ECKey | OKPKey

FRESH_S: Final = 600.0
TRUSTED_S: Final = 86_400.0  # how long keys that could not be fetched again are still believed
REFETCH_S: Final = 60.0
FIRST_RETRY_S: Final = 5.0  # while there are no keys at all
FETCH_TIMEOUT_S: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 256 * 2**10
MAX_KEYS: Final = 100
_LEAST_RSA_BITS: Final = 2048
_RSA_DIGITS: Final = range(_LEAST_RSA_BITS // 6, 16_384 // 6 + 3)  # base64 digits of a modulus
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA", "Ed25519"),
}
_PUBLIC: Final = ("kty", "n", "e", "crv", "x", "y")
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

_log = structlog.get_logger("api.authentication")


class _Unusable(Exception):
    """What the issuer answered cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of the issuer, and the algorithms it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    key: VerifyingKey


class IssuerKeys:
    """The key set of one issuer. It belongs to the event loop's thread and never blocks it.

    Keys count as fresh for 10 minutes; later ones are still used while the next fetch runs or fails, for a
    day at most. An unknown key id makes one fetch, at most every 60 s. There is never more than one fetch.
    """

    def __init__(
        self,
        issuer: str,
        algorithms: Collection[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        fetch_timeout_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        self.issuer = issuer
        self._algorithms = frozenset(algorithms)
        self._clock = clock
        self._fetch_timeout_s = fetch_timeout_s
        self._keys: tuple[SigningKey, ...] = ()
        self._discovery: Mapping[str, Any] | None = None
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._client: httpx2.AsyncClient | None = None

    async def key(self, kid: str | None, algorithm: str) -> VerifyingKey | None:
        """The key with this id for this algorithm; None where the issuer has none.

        Without an id it is the only key for this algorithm, if there is just one. Raises IssuerUnavailable.
        """
        if self._age_s() > TRUSTED_S:
            if self._may_try(FIRST_RETRY_S):
                await self._fetched()
            elif self._fetching is not None:
                await asyncio.shield(self._fetching)
            if self._age_s() > TRUSTED_S:
                raise IssuerUnavailable
        found = self._find(kid, algorithm)
        if found is None and self._may_try(REFETCH_S):
            await self._fetched()
            return self._find(kid, algorithm)
        if self._age_s() > FRESH_S and self._may_try(REFETCH_S):
            self._begin_fetch()
        return found

    async def discovery(self) -> Mapping[str, Any]:
        """Its discovery document, an old one while it is away; what it says was not looked at but `issuer`.

        Raises IssuerUnavailable: there never was one.
        """
        if self._discovery is None:
            if self._may_try(FIRST_RETRY_S):
                await self._fetched()
            elif self._fetching is not None:
                await asyncio.shield(self._fetching)
        elif self._age_s() > FRESH_S and self._may_try(REFETCH_S):
            self._begin_fetch()
        if self._discovery is None:
            raise IssuerUnavailable("It does not answer.")
        return self._discovery

    def prefetch(self) -> None:
        """Begin to fetch the keys, so that the first token need not wait for them."""
        self._begin_fetch()

    @property
    def is_fetching(self) -> bool:
        return self._fetching is not None

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _age_s(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _may_try(self, every_s: float) -> bool:
        return self._fetching is None and (
            self._tried_at is None or self._clock() - self._tried_at >= every_s
        )

    def _find(self, kid: str | None, algorithm: str) -> VerifyingKey | None:
        fitting = [each for each in self._keys if algorithm in each.algorithms]
        if kid is not None:
            fitting = [each for each in fitting if each.kid == kid]
        return fitting[0].key if len(fitting) == 1 else None

    # ------------------------------------------------------------ fetching

    def _begin_fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetched(self) -> None:
        # Shielded: a client that goes away must not take the fetch from the others who wait for it.
        await asyncio.shield(self._begin_fetch())

    async def _fetch(self) -> None:
        """Take over the issuer's present keys; on any failure keep those there are, and say so."""
        try:
            async with asyncio.timeout(self._fetch_timeout_s):
                self._keys = await self._present_keys()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, _Unusable) as error:
            reason = str(error) or type(error).__name__
            _log.warning("issuer.unavailable", issuer=self.issuer, reason=reason, keys_kept=len(self._keys))
        else:
            self._fetched_at = self._clock()
            _log.info("issuer.keys_fetched", issuer=self.issuer, keys=len(self._keys))
        finally:
            self._fetching = None

    async def _present_keys(self) -> tuple[SigningKey, ...]:
        discovery = await self._document(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if discovery.get("issuer") != self.issuer:
            raise _Unusable(f"it calls itself {str(discovery.get('issuer'))[:200]!r}")
        self._discovery = discovery
        address = discovery.get("jwks_uri")
        if not isinstance(address, str) or not is_safe_address(address, like=self.issuer):
            raise _Unusable("its jwks_uri is no https address")
        listed = (await self._document(address)).get("keys")
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise _Unusable(f"its key set is no list of at most {MAX_KEYS} keys")
        found = tuple(key for each in listed if (key := _signing_key(each, self._algorithms)) is not None)
        if not found:
            raise _Unusable("it has no key for " + ", ".join(sorted(self._algorithms)))
        return found

    async def _document(self, address: str) -> dict[str, Any]:
        client = await self._http()
        body = bytearray()
        async with client.stream("GET", address) as answer:
            if answer.status_code != 200:
                raise _Unusable(f"{address} answers {answer.status_code}")
            if "content-encoding" in answer.headers:
                raise _Unusable(f"{address} answers in an encoding nobody asked for")
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise _Unusable(f"{address} answers more than {MAX_DOCUMENT_BYTES} bytes")
        try:
            document = from_json(bytes(body))
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise _Unusable(f"{address} does not answer a JSON object")
        return document

    async def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            # In a thread: it reads the certificates of this machine. A proxy of the environment counts,
            # except for an issuer on this machine.
            self._client = await to_thread.run_sync(
                lambda: httpx2.AsyncClient(
                    timeout=self._fetch_timeout_s,
                    follow_redirects=False,
                    trust_env=not is_loopback(self.issuer),
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                )
            )
        return self._client


def _signing_key(value: Any, allowed: frozenset[str]) -> SigningKey | None:
    """The key of one entry of a key set, or None: not for signatures, not one of ours, or too weak."""
    if not isinstance(value, dict) or value.get("use", "sig") != "sig":
        return None
    kid, named = value.get("kid"), value.get("alg")
    algorithms = allowed & frozenset(_KINDS.get(str(value.get("kty")), ()))
    if named is not None:
        algorithms &= {str(named)}
    if not algorithms or not (kid is None or isinstance(kid, str)):
        return None
    key = _public_key(value)
    match key:
        case ECKey():
            algorithms &= {_CURVES.get(key.curve_name, "")}
        case OKPKey() if key.curve_name != "Ed25519":
            return None
    return SigningKey(kid, algorithms, key) if key is not None and algorithms else None


def _public_key(value: dict[str, Any]) -> VerifyingKey | None:
    """Its public part, whatever else is there."""
    public: dict[str, Any] = {name: value[name] for name in _PUBLIC if name in value}
    if public["kty"] == "RSA" and len(str(public.get("n"))) not in _RSA_DIGITS:
        return None
    try:
        key = JWKRegistry.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError, SecurityWarning):
        return None
    is_weak = isinstance(key, RSAKey) and key.raw_value.key_size < _LEAST_RSA_BITS
    return key if isinstance(key, RSAKey | ECKey | OKPKey) and not is_weak else None
