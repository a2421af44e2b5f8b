"""Keys over HTTP: made, used, replaced, revoked, refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runner.key_texts import new_key_text
from tests.support.keys import KeyedServer, keyed_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    with keyed_server(tmp_path_factory.mktemp("keyed")) as running:
        yield running


def prefix_of(key: str) -> str:
    return key.partition(".")[0]


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def answers_until_401(client: ContractClient) -> set[int]:
    """The other statuses that were seen before."""
    seen: set[int] = set()

    def is_refused() -> bool:
        status = client.get("/jobs").status_code
        seen.add(status)
        return status == 401

    wait_until(is_refused, what="the key's end")
    return seen - {401}


class TestAKey:
    def test_is_shown_once_and_never_listed(self, keyed: KeyedServer) -> None:
        text = keyed.key("read", name="once")
        listed = keyed.admin.get("/keys")
        entry = next(each for each in listed.json()["items"] if each["prefix"] == prefix_of(text))
        assert (entry["name"], entry["scopes"], entry["status"]) == ("once", ["read"], "active")
        assert text.partition(".")[2] not in listed.text
        assert text.partition(".")[2] not in keyed.admin.get("/audit?limit=500").text

    def test_works_in_either_header(self, keyed: KeyedServer) -> None:
        text = keyed.key("read")
        nobody = keyed.client(None)
        assert nobody.get("/jobs", headers={"Authorization": f"Bearer {text}"}).status_code == 200
        assert nobody.get("/jobs", headers={"X-API-Key": text}).status_code == 200
        both = {"Authorization": f"Bearer {text}", "X-API-Key": text}
        answer = nobody.get("/jobs", headers=both)
        assert (answer.status_code, answer.json()["type"]) == (400, "credentials-unclear")

    def test_is_refused_from_the_request_after_its_revocation(self, keyed: KeyedServer) -> None:
        client = keyed.client(text := keyed.key("read"))
        for _ in range(3):
            assert client.get("/jobs").status_code == 200
        assert keyed.admin.delete(f"/keys/{prefix_of(text)}").status_code == 204
        assert client.get("/jobs").status_code == 401
        assert keyed.admin.delete(f"/keys/{prefix_of(text)}").status_code == 204  # twice is no error

    def test_is_refused_once_it_has_expired(self, keyed: KeyedServer) -> None:
        assert answers_until_401(keyed.client(keyed.key("read", expires_at=in_seconds(0.7)))) <= {200}

    def test_is_replaced_by_one_that_is_the_same_but_for_its_text(self, keyed: KeyedServer) -> None:
        old = keyed.key("read", name="turns", tenant="atlas", expires_at=in_seconds(1000))
        answer = keyed.admin.post(f"/keys/{prefix_of(old)}/rotate", json={})
        new = answer.json()
        assert (answer.status_code, new["name"], new["tenant"], new["scopes"]) == (
            201,
            "turns",
            "atlas",
            ["read"],
        )
        lasts = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
        assert 990 < lasts.total_seconds() <= 1000
        assert keyed.client(old).get("/jobs").status_code == 401
        assert keyed.client(new["key"]).get("/jobs").status_code == 200
        again = keyed.admin.post(f"/keys/{prefix_of(old)}/rotate", json={})
        assert (again.status_code, again.json()["type"]) == (409, "key-not-active")

    def test_may_stay_good_for_a_while_after_it_is_replaced(self, keyed: KeyedServer) -> None:
        old = keyed.key("read")
        new = keyed.admin.post(f"/keys/{prefix_of(old)}/rotate", json={"overlap_s": 0.8}).json()["key"]
        assert answers_until_401(keyed.client(old)) <= {200}
        assert keyed.client(new).get("/jobs").status_code == 200

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"name": "Lims", "scopes": ["read"]}, "/name"),
            ({"name": "operator", "scopes": ["read"]}, "/name"),
            ({"name": "retention", "scopes": ["read"]}, "/name"),
            ({"name": "a" * 64, "scopes": ["read"]}, "/name"),
            ({"scopes": ["read"]}, "/name"),
            ({"name": "a", "scopes": []}, "/scopes"),
            ({"name": "a", "scopes": ["root"]}, "/scopes/0"),
            ({"name": "a", "scopes": "read"}, "/scopes"),
            ({"name": "a", "scopes": ["read"], "tenant": ""}, "/tenant"),
            ({"name": "a", "scopes": ["read"], "tenant": "**"}, "/tenant"),
            ({"name": "a", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
            ({"name": "a", "scopes": ["read"], "expires_at": 1893456000}, "/expires_at"),
            ({"name": "a", "scopes": ["read"], "secret": "mine"}, "/secret"),
        ],
    )
    def test_that_cannot_be_made_is_refused(
        self, keyed: KeyedServer, body: dict[str, Any], pointer: str
    ) -> None:
        answer = keyed.admin.post("/keys", json=body)
        assert answer.status_code == 422
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]

    @pytest.mark.parametrize("prefix", ["snk_abcdefghij", "x", "snk_%00bcdefghij", "*", "SNK_ABCDEFGHIJ"])
    def test_that_is_not_there_cannot_be_changed(self, keyed: KeyedServer, prefix: str) -> None:
        assert keyed.admin.delete(f"/keys/{prefix}").json()["type"] == "key-not-found"
        assert keyed.admin.post(f"/keys/{prefix}/rotate", json={}).json()["type"] == "key-not-found"


class TestAnAdminOfOneTenant:
    def test_makes_sees_and_ends_keys_of_its_own_alone(self, keyed: KeyedServer) -> None:
        admin = keyed.client(keyed.key(tenant="boreas", name="boss"))
        other = keyed.key("read", tenant="atlas")
        made = admin.post("/keys", json={"name": "b", "scopes": ["read"]}).json()
        assert made["tenant"] == "boreas"
        assert {each["tenant"] for each in admin.get("/keys").json()["items"]} == {"boreas"}
        for tenant in ("atlas", "*"):
            answer = admin.post("/keys", json={"name": "b", "scopes": ["read"], "tenant": tenant})
            assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
        operators = prefix_of(keyed.first_key)
        for prefix in (prefix_of(other), operators):
            unknown = admin.delete("/keys/snk_abcdefghij")
            answer = admin.delete(f"/keys/{prefix}")
            assert answer.status_code == unknown.status_code == 404
            assert (
                answer.text.replace(prefix, "snk_abcdefghij").partition("request_id")[0]
                == (unknown.text.partition("request_id")[0])
            )
            assert admin.post(f"/keys/{prefix}/rotate", json={}).status_code == 404
        assert keyed.client(other).get("/jobs").status_code == 200
        assert admin.delete(f"/keys/{made['prefix']}").status_code == 204

    def test_reads_the_record_of_its_own_alone(self, keyed: KeyedServer) -> None:
        admin = keyed.client(keyed.key(tenant="boreas", name="boss"))
        admin.submit(name="ours")
        keyed.client(keyed.key(tenant="atlas")).submit(name="theirs")
        records = admin.get("/audit?limit=500").json()["items"]
        assert {each["tenant"] for each in records} == {"boreas"}
        assert (records[0]["action"], records[0]["actor"]) == ("job.submitted", "boss")
        assert admin.get("/audit?tenant=atlas").json() == {"items": [], "next_cursor": None}
        assert keyed.admin.get("/audit?tenant=atlas").json()["items"]

    def test_sees_its_own_quota_and_sets_none(self, keyed: KeyedServer) -> None:
        admin = keyed.client(keyed.key(tenant="boreas"))
        assert keyed.admin.put("/tenants/boreas", json={"max_cores": 3, "max_gb": 0.5}).json() == {
            "name": "boreas", "max_cores": 3, "max_pending": None, "max_gb": 0.5,
        }  # fmt: skip
        assert [each["name"] for each in admin.get("/tenants").json()["items"]] == ["boreas"]
        for tenant in ("boreas", "atlas", "unheard-of"):
            answer = admin.put(f"/tenants/{tenant}", json={"max_cores": 100})
            assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
        keyed.key("read", tenant="atlas")
        everyone = {each["name"]: each for each in keyed.admin.get("/tenants").json()["items"]}
        assert everyone["boreas"]["max_cores"] == 3
        assert {"boreas", "atlas"} <= set(everyone)
        assert keyed.admin.put("/tenants/Not-One", json={}).status_code == 422
        assert keyed.admin.put("/tenants/boreas", json={}).json()["max_cores"] is None


class TestTheRecord:
    def test_says_who_did_what_to_what_when_and_from_where(self, keyed: KeyedServer) -> None:
        client = keyed.client(keyed.key("read", "submit", tenant="ceres", name="lims"))
        job = client.submit()
        answer = client.post(f"/jobs/{job['id']}/cancel", headers={"X-Request-ID": "mine-17"})
        client.wait_for(job["id"])
        records = keyed.admin.get(f"/audit?subject={job['id']}").json()["items"]
        assert [each["action"] for each in records][-1] == "job.submitted"
        if answer.status_code == 202:
            assert (records[0]["action"], records[0]["request_id"]) == ("job.cancelled", "mine-17")
        assert {(each["actor"], each["tenant"], each["address"]) for each in records} == {
            ("lims", "ceres", "127.0.0.1")
        }
        assert (job["owner"], job["tenant"]) == ("lims", "ceres")

    def test_comes_in_pages_that_hold_every_record_once(self, keyed: KeyedServer) -> None:
        made = {prefix_of(keyed.key("read", name="paged")) for _ in range(7)}
        found: list[str] = []
        path = "/audit?action=key.created&limit=3"
        while path:
            page = keyed.admin.get(path)
            found += [each["subject"] for each in page.json()["items"]]
            link = page.headers.get("link", "")
            path = link.partition(">")[0].lstrip("<")
        assert len(found) == len(set(found))
        assert made <= set(found)
        cursor = keyed.admin.get("/audit?limit=1").json()["next_cursor"]
        assert keyed.admin.get(f"/audit?limit=1&actor=x&cursor={cursor}").status_code == 400


class TestRefusals:
    def test_are_the_same_for_an_unknown_key_and_a_wrong_secret(self, keyed: KeyedServer) -> None:
        known = keyed.key("read")
        wrong = f"{prefix_of(known)}.{new_key_text().text.partition('.')[2]}"
        answers = [keyed.client(key).get("/jobs") for key in (wrong, new_key_text().text, "nonsense")]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.json()["detail"] for answer in answers}) == 1
        said = "The API key is unknown, revoked, expired or mistyped."
        challenge = f'Bearer realm="snakeline", error="invalid_token", error_description="{said}"'
        assert {answer.headers["www-authenticate"] for answer in answers} == {challenge}

    def test_in_the_address_a_key_is_refused_even_if_it_is_good(self, keyed: KeyedServer) -> None:
        text = keyed.key("read")
        for query in (f"api_key={text}", f"access_token={text}", f"q={text}"):
            answer = keyed.client(text).get(f"/jobs?{query}")
            assert (answer.status_code, answer.json()["type"]) == (400, "key-in-url")
            assert text not in answer.text


def test_after_ten_refusals_a_client_has_to_wait_but_a_good_key_has_not(tmp_path: Path) -> None:
    with keyed_server(tmp_path, DATABASE_URL="memory://", LOG_LEVEL="debug") as own:
        guesses = [new_key_text().text for _ in range(14)]
        answers = [own.client(guess).get("/jobs") for guess in guesses]
        assert [answer.status_code for answer in answers[:10]] == [401] * 10
        late = answers[-1]
        assert (late.status_code, late.json()["type"]) == (429, "too-many-failures")
        assert 0 < int(late.headers["retry-after"]) <= 60
        assert own.admin.get("/jobs").status_code == 200
        assert own.client(None).get("/jobs").status_code == 401  # who sends none does not guess
        own.admin.get("/jobs", params={"q": own.first_key})
        assert '"caller": "first-admin"' in own.server.log
        counted = own.admin.get("/metrics").text
        assert 'snakeline_http_refused_total{why="credentials-invalid"} 1' in counted
        assert re.search(r'snakeline_http_refused_total\{why="too-many-failures"\} [1-4]\.0', counted)
        refused = [line for line in own.server.log.splitlines() if "authentication.refused" in line]
        assert 10 <= len(refused) <= 13
        assert all(prefix_of(guess) in line for guess, line in zip(guesses, refused, strict=False))
        log = own.server.log.replace(f"  {own.first_key}\n", "", 1)  # where it was printed, once
        for text in (*guesses, own.first_key):
            assert text.partition(".")[2] not in log
