"""Bearer tokens, checked with the keys of a real issuer."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from api.auth_issuer import IssuerKeys
from api.auth_rules import InvalidToken, IssuerUnavailable, TokenRules, parse_grants
from api.auth_settings import DEFAULT_GRANTS
from api.auth_tokens import Tokens
from runner.access import ALL_SCOPES, Caller, Scope
from tests.support.issuer import AUDIENCE, Issuer, running_issuer, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def steady() -> Iterator[Issuer]:
    """An issuer that no test changes."""
    with running_issuer() as running:
        yield running


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


def rules(issuer: Issuer, **changes: Any) -> TokenRules:
    values = {"issuer": issuer.url, "audiences": (AUDIENCE,), "grants": parse_grants(DEFAULT_GRANTS)}
    return TokenRules(**{**values, **changes})


def caller_of(issuer: Issuer, token: str, **changes: Any) -> Caller:
    async def ask() -> Caller:
        given = rules(issuer, **changes)
        keys = IssuerKeys(given.issuer, given.algorithms)
        try:
            return await Tokens(given, keys).caller(token)
        finally:
            await keys.close()

    return asyncio.run(ask())


def refusal(issuer: Issuer, token: str, **changes: Any) -> str:
    with pytest.raises(InvalidToken) as caught:
        caller_of(issuer, token, **changes)
    return str(caught.value)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class TestAToken:
    @pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
    def test_of_the_issuer_says_who_calls(self, steady: Issuer, kid: str) -> None:
        caller = caller_of(steady, steady.token(kid))
        assert caller == Caller("oidc:ann", "default", frozenset({Scope.READ, Scope.SUBMIT}))

    def test_may_be_for_several_audiences(self, steady: Issuer) -> None:
        assert caller_of(steady, steady.token(aud=["other", AUDIENCE])).name == "oidc:ann"

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"iss": "http://127.0.0.1:1"}, "another issuer"),
            ({"iss": None}, "lacks a claim"),
            ({"iss": 7}, "another issuer"),
            ({"aud": "snakelines"}, "another audience"),
            ({"aud": ["snake", "line"]}, "another audience"),
            ({"aud": None}, "lacks a claim"),
            ({"aud": []}, "another audience"),
            ({"aud": {"snakeline": 1}}, "another audience"),
            ({"exp": int(time.time()) - 60}, "expired"),
            ({"exp": None}, "lacks a claim"),
            ({"exp": "tomorrow"}, "cannot be"),
            ({"exp": True}, "cannot be"),
            ({"nbf": int(time.time()) + 86_400}, "not valid yet"),
            ({"iat": int(time.time()) + 86_400}, "of the future"),
            ({"sub": None}, "no name"),
            ({"sub": ""}, "no name"),
            ({"sub": 7}, "cannot be"),
            ({"sub": "a\nb"}, "no name"),
            ({"sub": "a" * 201}, "no name"),
        ],
    )
    def test_whose_claims_do_not_hold_is_refused(
        self, steady: Issuer, claims: dict[str, Any], reason: str
    ) -> None:
        assert reason in refusal(steady, steady.token(**claims))

    @pytest.mark.parametrize(("claim", "from_now_s"), [("exp", -20), ("nbf", 20), ("iat", 20)])
    def test_may_be_a_little_off_in_time(self, steady: Issuer, claim: str, from_now_s: int) -> None:
        claims: dict[str, Any] = {claim: int(time.time()) + from_now_s}
        assert caller_of(steady, steady.token(**claims)).name == "oidc:ann"

    def test_that_is_not_signed_is_refused(self, steady: Issuer) -> None:
        for algorithm in ("none", "None", "NONE", ""):
            token = f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(steady.claims())}."
            assert "not allowed" in refusal(steady, token)

    def test_signed_by_the_public_key_as_a_secret_is_refused(self, steady: Issuer) -> None:
        public = OctKey.import_key(json.dumps(steady.keys["rsa"].as_dict(private=False)))
        pem = OctKey.import_key(base64.b64encode(steady.keys["rsa"].as_pem(private=False)).decode())
        for secret in (public, pem):
            token = sign(secret, {"alg": "HS256", "kid": "rsa"}, steady.claims())
            assert "not allowed" in refusal(steady, token)

    def test_signed_by_the_key_of_another_under_a_known_id_is_refused(self, steady: Issuer) -> None:
        for kid, key in (("rsa", RSAKey.generate_key(2048)), ("ec", ECKey.generate_key("P-256"))):
            assert "signature" in refusal(steady, sign(key, {"kid": kid}, steady.claims()))

    def test_with_a_changed_claim_is_refused(self, steady: Issuer) -> None:
        head, _, signature = steady.token().split(".")
        token = f"{head}.{part(steady.claims(sub='root'))}.{signature}"
        assert "signature" in refusal(steady, token)

    def test_with_an_algorithm_that_is_not_listed_is_refused(self, steady: Issuer) -> None:
        token = steady.token(header={"alg": "RS512"})
        assert "not allowed" in refusal(steady, token)
        assert caller_of(steady, token, algorithms=("RS512",)).name == "oidc:ann"
        assert "not allowed" in refusal(steady, steady.token("ec"), algorithms=("RS256",))

    def test_that_brings_its_own_key_is_refused(self, steady: Issuer) -> None:
        own = RSAKey.generate_key(2048)
        header = {"jwk": own.as_dict(private=False), "kid": "mine"}
        assert "no such key" in refusal(steady, sign(own, header, steady.claims()))
        assert "signature" in refusal(steady, sign(own, {**header, "kid": "rsa"}, steady.claims()))

    @pytest.mark.parametrize("extra", [{"b64": True, "crit": ["b64"]}, {"b64": True}])
    def test_whose_header_asks_for_more_than_a_signature_is_refused(
        self, steady: Issuer, extra: dict[str, Any]
    ) -> None:
        assert "not allowed" in refusal(steady, steady.token(header=extra))

    def test_whose_key_id_is_no_text_is_refused(self, steady: Issuer) -> None:
        assert "no text" in refusal(steady, f"{part({'alg': 'RS256', 'kid': 7})}.e30.x")

    @pytest.mark.parametrize(
        "token",
        ["", ".", "..", "a.b.c", "a.b.c.d.e", "e30.e30.", "A" * 10_000, "." * 5000, f"{'W' * 4000}.e30.x"],
    )
    def test_that_is_none_is_refused(self, steady: Issuer, token: str) -> None:
        assert refusal(steady, token)

    def test_nested_without_end_is_refused(self, steady: Issuer) -> None:
        deep = base64.urlsafe_b64encode(b"[" * 2900).decode().rstrip("=")
        assert refusal(steady, f"{deep}.e30.x")
        head, _, signature = steady.token().split(".")
        deep = base64.urlsafe_b64encode(b'{"a":' * 2900).decode().rstrip("=")
        assert refusal(steady, f"{head}.{deep}.{signature}")


class TestClaims:
    def test_the_tenant_is_the_claim_that_the_settings_name(self, steady: Issuer) -> None:
        token = steady.token(groups={"tenant": "atlas"})
        assert caller_of(steady, token, tenant_claim="groups.tenant").tenant == "atlas"

    def test_a_claim_whose_name_has_dots_is_found_first(self, steady: Issuer) -> None:
        token = steady.token(header=None, **{"https://a.org/tenant": "atlas"})
        assert caller_of(steady, token, tenant_claim="https://a.org/tenant").tenant == "atlas"

    @pytest.mark.parametrize("tenant", [None, "", "*", "Atlas", "a b", 7, ["atlas"], "../x"])
    def test_without_a_tenant_that_can_be_one_it_is_refused(self, steady: Issuer, tenant: Any) -> None:
        assert "no tenant's name" in refusal(steady, steady.token(tenant=tenant), tenant_claim="tenant")

    def test_roles_may_be_a_list_somewhere_inside(self, steady: Issuer) -> None:
        token = steady.token(realm_access={"roles": ["analyst", "offline", 7]})
        grants = parse_grants("submit=analyst, read=analyst admin=boss")
        caller = caller_of(steady, token, scope_claim="realm_access.roles", grants=grants)
        assert caller.scopes == {Scope.READ, Scope.SUBMIT}

    def test_an_operator_sees_every_tenant(self, steady: Issuer) -> None:
        grants = parse_grants("operator=platform")
        caller = caller_of(steady, steady.token(scope="platform"), grants=grants, tenant_claim="tenant")
        assert (caller.scopes, caller.all_tenants, caller.tenant) == (ALL_SCOPES, True, "default")

    @pytest.mark.parametrize("scope", [None, "", "snakeline:root", 7, {"snakeline:read": 1}])
    def test_what_nothing_is_mapped_to_gives_nothing(self, steady: Issuer, scope: Any) -> None:
        assert caller_of(steady, steady.token(scope=scope)).scopes == frozenset()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - on the loop of what is tested
            await asyncio.sleep(0.005)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestTheKeySet:
    """`IssuerKeys` over time: the clock is ours, the issuer and its answers are real."""

    def run(self, issuer: Issuer, steps: Any, **changes: Any) -> None:
        async def play() -> None:
            clock = Clock()
            keys = IssuerKeys(issuer.url, ("RS256", "ES256", "EdDSA"), clock=clock, **changes)
            try:
                await steps(keys, clock)
            finally:
                await keys.close()

        asyncio.run(play())

    def test_is_fetched_once_for_many_who_ask_at_once(self, issuer: Issuer) -> None:
        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            found = await asyncio.gather(*(keys.key("rsa", "RS256") for _ in range(50)))
            assert all(found)

        self.run(issuer, steps)
        assert issuer.asked == {DISCOVERY: 1, "/keys": 1}

    def test_is_fetched_again_for_an_unknown_key_once_a_minute(self, issuer: Issuer) -> None:
        async def steps(keys: IssuerKeys, clock: Clock) -> None:
            assert await keys.key("rsa", "RS256")
            issuer.keys["new"] = RSAKey.generate_key(2048)
            for _ in range(5):
                assert await keys.key("new", "RS256") is None  # a minute has not gone by
            clock.now += 60
            assert await keys.key("new", "RS256")
            clock.now += 60
            for n in range(5):
                assert await keys.key(f"guess-{n}", "RS256") is None
            assert issuer.asked["/keys"] == 3

        self.run(issuer, steps)

    def test_a_key_that_the_issuer_withdraws_is_gone_in_time(self, issuer: Issuer) -> None:
        async def steps(keys: IssuerKeys, clock: Clock) -> None:
            assert await keys.key("rsa", "RS256")
            del issuer.keys["rsa"]
            clock.now += 601
            assert await keys.key("rsa", "RS256")  # still; the fetch runs beside it
            await until(lambda: issuer.asked["/keys"] == 2 and not keys.is_fetching)
            assert await keys.key("rsa", "RS256") is None

        self.run(issuer, steps)

    def test_is_kept_while_the_issuer_is_away_but_not_for_ever(self, issuer: Issuer) -> None:
        async def steps(keys: IssuerKeys, clock: Clock) -> None:
            assert await keys.key("rsa", "RS256")
            issuer.status = 503
            for _ in range(20):
                clock.now += 4000
                assert await keys.key("rsa", "RS256")
                await until(lambda: not keys.is_fetching)
            clock.now += 7000
            with pytest.raises(IssuerUnavailable):
                await keys.key("rsa", "RS256")
            issuer.status = 200
            clock.now += 5
            assert await keys.key("rsa", "RS256")

        self.run(issuer, steps)

    def test_an_issuer_that_was_never_there_is_asked_every_few_seconds_only(self, issuer: Issuer) -> None:
        issuer.status = 500

        async def steps(keys: IssuerKeys, clock: Clock) -> None:
            for _ in range(3):
                for _ in range(5):
                    with pytest.raises(IssuerUnavailable):
                        await keys.key("rsa", "RS256")
                clock.now += 5
            assert issuer.asked[DISCOVERY] == 3

        self.run(issuer, steps)

    def test_a_slow_issuer_holds_up_nobody_whose_key_is_known(self, issuer: Issuer) -> None:
        async def steps(keys: IssuerKeys, clock: Clock) -> None:
            assert await keys.key("rsa", "RS256")
            issuer.held.clear()
            clock.now += 61
            unknown = asyncio.create_task(keys.key("guess", "RS256"))
            await until(lambda: issuer.asked[DISCOVERY] == 2)
            for _ in range(100):
                assert await keys.key("ec", "ES256")
            assert not unknown.done()
            issuer.held.set()
            assert await unknown is None

        self.run(issuer, steps)

    def test_an_issuer_that_answers_a_byte_at_a_time_is_not_waited_for(self, issuer: Issuer) -> None:
        issuer.drips_every_s = 0.05

        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            began = time.monotonic()
            with pytest.raises(IssuerUnavailable):
                await keys.key("rsa", "RS256")
            assert time.monotonic() - began < 5

        self.run(issuer, steps, fetch_timeout_s=0.3)

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"[]",
            b"nonsense",
            b"[" * 100_000,
            b'{"keys": "none"}',
            b'{"keys": []}',
            b'{"keys": [1, null, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA", "alg": "HS256"}]}',
            json.dumps({"keys": [{"kty": "RSA", "n": "AQAB" * 8, "e": "AQAB"}]}).encode(),
        ],
    )
    def test_that_cannot_be_used_is_none(self, issuer: Issuer, answer: bytes) -> None:
        issuer.answers["/keys"] = answer

        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            with pytest.raises(IssuerUnavailable):
                await keys.key("rsa", "RS256")

        self.run(issuer, steps)

    @pytest.mark.parametrize("more", [{"x": "x" * 300_000}, {"keys": [{}] * 100}])
    def test_that_is_too_large_is_none_although_it_has_the_key(
        self, issuer: Issuer, more: dict[str, Any]
    ) -> None:
        keys = issuer.key_set()["keys"]
        issuer.answers["/keys"] = json.dumps({**more, "keys": [*keys, *more.get("keys", [])]}).encode()

        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            with pytest.raises(IssuerUnavailable):
                await keys.key("rsa", "RS256")

        self.run(issuer, steps)

    @pytest.mark.parametrize(
        "change",
        [
            {"issuer": "https://other.example"},
            {"jwks_uri": "http://192.0.2.1/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": "http://127.0.0.1:1@192.0.2.1/keys"},
            {"jwks_uri": "http://user:word@127.0.0.1:PORT/keys"},
            {"jwks_uri": None},
        ],
    )
    def test_is_taken_from_where_it_may_be_alone(self, issuer: Issuer, change: dict[str, Any]) -> None:
        usual = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
        port = issuer.url.rpartition(":")[2]
        issuer.answers[DISCOVERY] = json.dumps({**usual, **change}).replace("PORT", port).encode()

        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            with pytest.raises(IssuerUnavailable):
                await keys.key("rsa", "RS256")

        self.run(issuer, steps)
        assert issuer.asked["/keys"] == 0

    def test_a_key_for_another_use_or_algorithm_is_none_for_this(self, issuer: Issuer) -> None:
        rsa = issuer.keys["rsa"].as_dict(private=False)
        ec = issuer.keys["ec"].as_dict(private=False)
        listed = [
            {**rsa, "kid": "enc", "use": "enc"},
            {**rsa, "kid": "pss", "alg": "PS256"},
            {**ec, "kid": "curve"},
            {**rsa, "kid": "ok", "use": "sig", "alg": "RS256", "d": "AQAB", "x5c": ["x"]},
        ]
        issuer.answers["/keys"] = json.dumps({"keys": listed}).encode()

        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            assert await keys.key("ok", "RS256")
            assert await keys.key(None, "RS256")  # the only one there is for it
            for kid, algorithm in (("enc", "RS256"), ("pss", "RS256"), ("pss", "PS256"), ("curve", "RS256")):
                assert await keys.key(kid, algorithm) is None

        self.run(issuer, steps)

    def test_without_an_id_one_of_several_is_not_guessed(self, issuer: Issuer) -> None:
        issuer.keys["rsa-2"] = RSAKey.generate_key(2048)

        async def steps(keys: IssuerKeys, _clock: Clock) -> None:
            assert await keys.key(None, "RS256") is None
            assert await keys.key(None, "ES256")

        self.run(issuer, steps)
