"""What belongs to another tenant is answered exactly as what does not exist, wherever it is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.keys import KeyedServer, keyed_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import ContractClient

OURS, THEIRS = "alpha", "omega"
# The same kind and length of thing, but there is none.
MISSING = {
    "job_id": "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b",
    "prefix": "snk_zzzzzzzzzz",
    "name": "omegb",
}
BOUNDED = settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Both:
    """One service with jobs of two tenants; `ask` calls with a key of ours."""

    keyed: KeyedServer
    ask: httpx2.Client
    theirs: ContractClient
    operations: list[tuple[str, str]]
    our_jobs: list[str]
    their_jobs: list[str]
    their_prefix: str

    def job_states(self) -> list[tuple[str, str, str]]:
        found = [self.theirs.get(f"/jobs/{job_id}") for job_id in self.their_jobs]
        return [(f.json()["id"], f.json()["status"], f.headers["etag"]) for f in found]


def plain_client(keyed: KeyedServer, key: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.Client(
        base_url=keyed.server.url, headers=headers, timeout=30, trust_env=False, verify=False
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with keyed_server(tmp_path_factory.mktemp("tenants"), MAX_CORES="8", STOP_GRACE_S="1") as keyed:
        ours = keyed.client(keyed.key(tenant=OURS, name="alpha-bot"))
        theirs = keyed.client(their_key := keyed.key(tenant=THEIRS, name="omega-bot"))
        our_jobs = [ours.submit(name=f"mine {n}", labels={"of": OURS})["id"] for n in range(3)]
        their_jobs = []
        for n, mock in enumerate(({}, {"exit_code": 1}, {"seconds": 600}, {"seconds": 600})):
            body = {"name": f"secret {n}", "labels": {"of": THEIRS}, "parameters": {"mock": mock}}
            answer = theirs.post("/jobs", json=body, headers={"Idempotency-Key": f"key-{n}"})
            their_jobs.append(answer.json()["id"])
        theirs.wait_for(their_jobs[0], "completed")
        theirs.wait_for(their_jobs[1], "failed")
        theirs.wait_for(their_jobs[2], "running")
        theirs.post(f"/jobs/{their_jobs[3]}/cancel")
        theirs.wait_for(their_jobs[3], "cancelled")
        for job_id in our_jobs:
            ours.wait_for(job_id)
        with plain_client(keyed, keyed.key(tenant=OURS, name="asker")) as ask:
            yield Both(
                keyed=keyed,
                ask=ask,
                theirs=theirs,
                operations=[
                    (method.upper(), path)
                    for path, methods in keyed.admin.document["paths"].items()
                    for method in methods
                    if "{" in path and path != "/workflows/{name}"
                ],
                our_jobs=our_jobs,
                their_jobs=their_jobs,
                their_prefix=their_key.partition(".")[0],
            )


def seen(answer: httpx2.Response, values: dict[str, str]) -> tuple[int, list[tuple[str, str]], str]:
    """All there is to see of an answer, with the names we asked by in place of `values`."""
    text = answer.text
    for name, value in values.items():
        text = text.replace(value, MISSING[name])
    text = text.replace(answer.headers["x-request-id"], "REQUEST-ID")
    headers = [(k, v) for k, v in answer.headers.multi_items() if k not in ("date", "x-request-id")]
    return answer.status_code, sorted(headers), text


QUERIES = st.sampled_from(
    (
        "",
        "wait=0.01",
        "tail=5",
        "tail=0",
        "offset=0",
        "offset=1&limit=10",
        "attempt=1",
        "attempt=2",
        "limit=1",
    )
) | st.sampled_from(
    (
        "follow=true",
        "follow=true&attempt=1&tail=1",
        "limit=500",
        "all=true",
        "prefix=a",
        "declared=true&rule=a",
        "format=zip",
        "checksum=sha256",
        "preview=true",
        "unknown=1",
        "limit=x",
    )
)
HEADERS = st.dictionaries(
    st.sampled_from(["If-None-Match", "If-Range", "Range", "Last-Event-ID", "Accept", "X-Request-ID"]),
    st.sampled_from(
        [
            "*",
            'W/"1"',
            'W/"2"',
            'W/"3"',
            'W/"4"',
            '"1-100"',
            "bytes=0-9",
            "bytes=-5",
            "0",
            "7",
            "text/event-stream",
            "application/zip",
        ]
    ),
    max_size=3,
)
BODIES = st.sampled_from([b"", b"{}", b'{"overlap_s": 1}', b'{"max_cores": 4}', b"{", b'{"x": 1}'])
PATHS = st.sampled_from(["results/a.txt", "Snakefile", "", "..", "results", "results/", "%2e%2e/x", "a%00b"])


@BOUNDED
@given(data=st.data())
def test_asked_for_by_name_it_is_missing(both: Both, data: st.DataObject) -> None:
    method, template = data.draw(st.sampled_from(both.operations))
    values = {
        "job_id": data.draw(st.sampled_from(both.their_jobs)),
        "prefix": both.their_prefix,
        "name": THEIRS,
    }
    query, headers = data.draw(QUERIES), data.draw(HEADERS)
    body = data.draw(BODIES) if method in ("POST", "PUT") else None
    template = template.replace("{path}", data.draw(PATHS))
    if method == "GET" and data.draw(st.booleans()):
        method = "HEAD"
    answers = []
    for named in (values, MISSING):
        path = template
        for name, value in named.items():
            path = path.replace(f"{{{name}}}", value)
        sent = {**headers, **({"Content-Type": "application/json"} if body is not None else {})}
        answer = both.ask.request(method, f"{path}?{query}", headers=sent, content=body)
        answers.append(seen(answer, named))
    assert answers[0] == answers[1]
    assert answers[0][0] >= 400


def test_none_of_all_this_has_touched_their_jobs(both: Both) -> None:
    before = both.job_states()
    for job_id in both.their_jobs:
        for method, path in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
            assert both.ask.request(method, f"/jobs/{job_id}{path}").status_code == 404
    assert both.job_states() == before
    records = both.keyed.admin.get(f"/audit?tenant={THEIRS}&limit=500").json()["items"]
    assert {each["actor"] for each in records} == {"omega-bot", "first-admin"}


STATUSES = st.lists(st.sampled_from(["pending", "running", "completed", "failed", "cancelled"]), max_size=3)


@BOUNDED
@given(
    statuses=STATUSES,
    others=st.dictionaries(
        st.sampled_from(["workflow", "label", "q", "order", "limit", "created_after", "tenant"]),
        st.sampled_from([
            "demo", f"of:{THEIRS}", f"of:{OURS}", "secret", "mine", "s", "m", "asc", "desc", "1", "2", "500",
            "2020-01-01T00:00:00Z", THEIRS, OURS, "019",
        ]),
        max_size=3,
    ),
)  # fmt: skip
@example(statuses=[], others={})
@example(statuses=["running"], others={})
@example(statuses=[], others={"q": "secret"})
@example(statuses=[], others={"label": f"of:{THEIRS}"})
def test_no_list_total_or_link_tells_of_it(both: Both, statuses: list[str], others: dict[str, str]) -> None:
    answer = both.ask.get("/jobs", params={"status": statuses, **others})
    if answer.status_code != 200:
        assert answer.status_code == 422
        return
    found, total = [], answer.json()["total"]
    while True:
        found += answer.json()["items"]
        link = answer.headers.get("link", "")
        if not link:
            break
        answer = both.ask.get(link.partition(">")[0].lstrip("<"))
    ids = {job["id"] for job in found}
    assert ids <= set(both.our_jobs)
    assert {job["tenant"] for job in found} <= {OURS}
    assert total == len(found)


def test_an_id_in_a_search_does_not_find_it(both: Both) -> None:
    for job_id in both.their_jobs:
        for q in (job_id, job_id[:13]):
            ids = {job["id"] for job in both.ask.get("/jobs", params={"q": q}).json()["items"]}
            assert ids <= set(both.our_jobs)


def test_a_cursor_of_theirs_leads_to_jobs_of_ours_alone(both: Both) -> None:
    cursor = both.theirs.get("/jobs?limit=1").json()["next_cursor"]
    page = both.ask.get("/jobs", params={"limit": 1, "cursor": cursor}).json()
    assert {job["id"] for job in page["items"]} <= set(both.our_jobs)
    audit = both.theirs.get("/audit?limit=1").json()["next_cursor"]
    if audit is not None:
        records = both.ask.get("/audit", params={"limit": 1, "cursor": audit}).json()["items"]
        assert {record["tenant"] for record in records} <= {OURS}


def test_an_idempotency_key_of_theirs_is_free_for_us(both: Both) -> None:
    for body in ({"name": "secret 0"}, {"name": "another body"}):
        mine = both.keyed.client(both.keyed.key(tenant="third" if body["name"] == "secret 0" else "fourth"))
        answer = mine.post("/jobs", json=body, headers={"Idempotency-Key": "key-0"})
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers
        assert answer.json()["id"] not in both.their_jobs
        mine.wait_for(answer.json()["id"])


@pytest.mark.parametrize(
    ("name", "theirs", "nobodys"),
    [("tenant", THEIRS, "omegb"), ("actor", "omega-bot", "omegb-bot"), ("subject", "JOB", MISSING["job_id"])],
)
def test_the_record_of_changes_has_nothing_of_it(both: Both, name: str, theirs: str, nobodys: str) -> None:
    asked = both.their_jobs[0] if theirs == "JOB" else theirs
    answers = [seen(both.ask.get("/audit", params={name: value}), {}) for value in (asked, nobodys)]
    assert answers[0] == answers[1]
    assert answers[0][2] == '{"items":[],"next_cursor":null}'


def test_no_metric_names_a_tenant_and_none_is_for_us(both: Both) -> None:
    assert both.ask.get("/metrics").status_code == 403
    exposed = both.keyed.admin.get("/metrics").text
    assert not re.search(f"{OURS}|{THEIRS}", exposed)


def test_a_wait_for_a_job_of_ours_is_not_ended_by_a_change_of_theirs(both: Both) -> None:
    job_id = both.our_jobs[0]
    etag = both.ask.get(f"/jobs/{job_id}").headers["etag"]
    running = both.their_jobs[2]
    with both.keyed.client(both.keyed.key(tenant=OURS)) as waiter:
        request = waiter.build_request("GET", f"/jobs/{job_id}?wait=0.4", headers={"If-None-Match": etag})
        both.theirs.post(f"/jobs/{running}/cancel")
        answer = waiter.send(request)
        assert answer.status_code == 304
    both.theirs.wait_for(running, "cancelled")


def test_an_operator_sees_the_jobs_of_both(both: Both) -> None:
    ids = {job["id"] for job in both.keyed.admin.get("/jobs?limit=500").json()["items"]}
    assert {*both.our_jobs, *both.their_jobs} <= ids
    for job_id in (both.our_jobs[0], both.their_jobs[0]):
        assert both.keyed.admin.get(f"/jobs/{job_id}").status_code == 200
