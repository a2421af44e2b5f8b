"""Lists of jobs over HTTP: pages, filters, totals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.support.client import ContractClient


class TestList:
    def test_newest_first_with_a_total(self, client: ContractClient) -> None:
        batch = uuid4().hex
        ids = [client.submit(labels={"batch": batch}, name=f"n{i}")["id"] for i in range(3)]
        page = client.get("/jobs", params={"label": f"batch:{batch}"}).json()
        assert [job["id"] for job in page["items"]] == ids[::-1]
        assert page["total"] == 3
        assert page["next_cursor"] is None

    def test_an_exact_total_without_other_filters(self, client: ContractClient) -> None:
        before = client.get("/jobs", params={"limit": 1}).json()
        client.submit()
        after = client.get("/jobs", params={"limit": 1}).json()
        assert before["total_is_exact"]
        assert after["total_is_exact"]
        assert after["total"] == before["total"] + 1

    @pytest.mark.parametrize("order", ["desc", "asc"])
    def test_pages_follow_the_link_header_and_lose_nothing(self, client: ContractClient, order: str) -> None:
        batch = uuid4().hex
        ids = [client.submit(labels={"batch": batch})["id"] for _ in range(5)]
        seen: list[str] = []
        url = f"/jobs?label=batch:{batch}&limit=2&order={order}"
        sizes = []
        while url:
            answer = client.get(url)
            page = answer.json()
            seen += [job["id"] for job in page["items"]]
            sizes.append(len(page["items"]))
            link = answer.headers.get("link", "")
            url = link.partition(">")[0].lstrip("<")
            assert bool(url) == bool(page["next_cursor"])
            if url:
                assert link.endswith('; rel="next"')
                assert parse_qs(urlsplit(url).query)["cursor"] == [page["next_cursor"]]
        assert seen == (ids if order == "asc" else ids[::-1])
        assert sizes == [2, 2, 1]

    def test_statuses_are_alternatives(self, client: ContractClient) -> None:
        batch = uuid4().hex
        good = client.run(labels={"batch": batch})
        bad = client.run(labels={"batch": batch}, parameters={"mock": {"exit_code": 1}})
        label = f"batch:{batch}"
        both = client.get("/jobs", params={"status": ["completed", "failed"], "label": label}).json()
        assert {job["id"] for job in both["items"]} == {good["id"], bad["id"]}
        one = client.get("/jobs", params={"status": "failed", "label": label}).json()
        assert [job["id"] for job in one["items"]] == [bad["id"]]

    def test_name_id_workflow_and_labels_filter(self, client: ContractClient) -> None:
        name = f"Batch {uuid4().hex}"
        job = client.submit(name=name, labels={"a": "1", "b": "x:y", "key": name[6:]})
        hits: list[dict[str, Any]] = [
            {"q": name.upper()[2:]},
            {"q": "bA", "label": f"key:{name[6:]}"},
            {"q": job["id"]},
            {"q": job["id"][:8], "label": f"key:{name[6:]}"},
            {"q": name, "workflow": "demo"},
            {"q": name, "label": ["a:1", "b:x:y"]},
        ]
        misses: list[dict[str, Any]] = [
            {"q": job["id"][:7], "label": f"key:{name[6:]}"},
            {"q": "tc", "label": f"key:{name[6:]}"},
            {"q": name, "workflow": "failing"},
            {"q": name, "label": ["a:1", "b:x"]},
            {"q": name + "?"},
        ]
        assert all(client.get("/jobs", params=query).json()["total"] == 1 for query in hits)
        assert all(client.get("/jobs", params=query).json()["total"] == 0 for query in misses)

    def test_times_filter_in_any_time_zone(self, client: ContractClient) -> None:
        job = client.submit(name=uuid4().hex)
        early, late = "2020-01-01T00:00:00Z", "2120-01-01T00:00:00+14:00"

        def total(**times: str) -> int:
            found: int = client.get("/jobs", params={"q": job["name"], **times}).json()["total"]
            return found

        assert total(created_after=early, created_before=late) == 1
        assert total(created_after=late) == 0
        assert total(created_before=early) == 0
        assert total(created_after="2020-01-01t00:00:00z") == 1
        # The very instant is left out.
        instant = job["created_at"]
        assert total(created_after=instant) == total(created_before=instant) == 0
        # A plus sign that was not escaped arrives as a space.
        url = f"/jobs?q={job['name']}&created_before=2120-01-01T00:00:00+14:00"
        assert client.get(url).json()["total"] == 1

    @pytest.mark.parametrize(
        ("query", "parameter"),
        [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=ten", "limit"),
            ("status=done", "status"),
            ("order=up", "order"),
            ("label=nocolon", "label"),
            ("created_after=yesterday", "created_after"),
            ("created_after=12", "created_after"),
            ("created_after=2026-01-01T00:00:00", "created_after"),
            ("created_after=0001-01-01T00:00:00%2B14:00", "created_after"),
            ("q=a%00b", "q"),
            ("statsu=failed", "statsu"),
        ],
    )
    def test_a_query_that_makes_no_sense_is_422_and_named(
        self, client: ContractClient, query: str, parameter: str
    ) -> None:
        answer = client.get(f"/jobs?{query}")
        assert answer.status_code == 422
        assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]

    @pytest.mark.parametrize("cursor", ["", "x", "%00", "aGVsbG8", "A" * 23, "é", "A" * 600])
    def test_a_cursor_that_is_not_ours_is_refused(self, client: ContractClient, cursor: str) -> None:
        assert client.get("/jobs", params={"cursor": cursor}).status_code in (400, 422)

    def test_a_cursor_is_bound_to_its_filters_and_order(self, client: ContractClient) -> None:
        client.submit()
        client.submit()
        cursor = client.get("/jobs?limit=1").json()["next_cursor"]
        assert client.get("/jobs", params={"cursor": cursor, "limit": 3}).status_code == 200
        for other in ({"order": "asc"}, {"workflow": "demo"}, {"q": "a"}, {"status": "failed"}):
            answer = client.get("/jobs", params={"cursor": cursor, **other})
            assert (answer.status_code, answer.json()["type"]) == (400, "invalid-cursor")
