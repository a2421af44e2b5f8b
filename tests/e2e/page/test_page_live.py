"""The page while things change: late answers, tabs behind others, silent streams, jobs that go away."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.held_job import held_job
from tests.support.page_views import job_row
from tests.support.server import LiveServer, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import APIResponse, Page, Route

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
MANY = 55  # more than a page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("page"), MAX_CORES="4", STOP_GRACE_S="1") as live:
        yield live


def turn_away(page: Page, *, hidden: bool) -> None:
    """As if another tab were in front, or this one again."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


def test_an_answer_that_comes_late_does_not_undo_what_was_heard_since(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    late: list[tuple[Route, APIResponse]] = []
    with held_job(server.client, tmp_path, lines=1) as (job_id, gate):
        page = visit().open(server)
        row = page.locator(f'tr[data-id="{job_id}"]')
        expect(row.locator(".status.running")).to_be_visible()
        first_page = re.compile(r"/jobs\?limit=50$")
        page.route(first_page, lambda route: late.append((route, route.fetch())), times=1)
        with page.expect_request(first_page):
            second = server.client.submit(name="second")["id"]
        server.client.wait_for(second, "completed")
        gate.write_text("go")
        expect(row.locator(".status.completed")).to_be_visible()  # as the events told
        [(route, answer)] = late
        assert next(job for job in answer.json()["items"] if job["id"] == job_id)["status"] == "running"
        route.fulfill(response=answer)
        expect(job_row(page, "second")).to_be_visible()  # so that answer is shown
        assert row.locator(".status.completed").count() == 1


def test_a_tab_behind_others_gives_its_stream_back_and_catches_up_when_it_is_seen(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    deleted = server.client.run(name="goes away")
    one = visit()
    page = one.page
    page.clock.install()
    page.goto(f"{server.url}/#/")
    expect(job_row(page, "goes away")).to_be_visible()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/events")):
        turn_away(page, hidden=True)
        page.clock.fast_forward(61_000)
    server.client.run(name="meanwhile")
    assert server.client.delete(f"/jobs/{deleted['id']}").status_code == 204
    streams = len([address for address in one.addresses if address.endswith("/events")])
    page.clock.run_for(20_000)  # longer than it would wait before it comes back
    assert len([address for address in one.addresses if address.endswith("/events")]) == streams
    assert job_row(page, "meanwhile").count() == 0
    turn_away(page, hidden=False)
    expect(job_row(page, "meanwhile").get_by_text("completed")).to_be_visible()
    expect(job_row(page, "goes away")).to_have_count(0)


def test_a_stream_that_says_nothing_any_more_is_opened_again(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    page = visit().page
    page.clock.install()
    page.goto(f"{server.url}/#/")
    server.client.run(name="before")
    expect(job_row(page, "before").get_by_text("completed")).to_be_visible()
    with page.expect_request(re.compile("/events$")):
        page.clock.fast_forward(41_000)
    server.client.run(name="after")
    expect(job_row(page, "after").get_by_text("completed")).to_be_visible()


def test_what_happens_before_a_stream_that_was_refused_is_there_is_shown_with_it(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    refused: list[Route] = []
    page = visit().page
    page.clock.install()
    page.route(re.compile("/events$"), lambda route: refused.append(route), times=1)  # noqa: PLW0108 - it is marked
    with page.expect_request(re.compile("/events$")):
        page.goto(f"{server.url}/#/")
    page.locator("tr[data-id], .empty").first.wait_for()
    server.client.run(name="unheard")
    with page.expect_response(re.compile("/events$")):
        refused[0].fulfill(status=429, json={"type": "too-many-streams"})
    assert job_row(page, "unheard").count() == 0
    page.clock.run_for(10_000)
    expect(job_row(page, "unheard").get_by_text("completed")).to_be_visible()


def test_a_form_that_could_not_be_fetched_comes_when_the_service_is_heard_again(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    page = visit().page
    page.route("**/workflows", lambda route: route.abort(), times=1)
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/workflows")):
        page.goto(f"{server.url}/#/new")
    server.client.run(name="something is heard")
    expect(page.get_by_label("Workflow")).to_have_value("demo")
    expect(page.get_by_text("The service could not be reached.")).to_have_count(0)


def test_a_job_that_is_deleted_while_it_is_looked_at_is_told_to_be_gone(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="looked at")
    for place in ("", "/log"):
        page = visit().page
        page.clock.install()
        page.goto(f"{server.url}/#/jobs/{job['id']}{place}")
        expect(page.get_by_role("region", name="Log of the job")).to_contain_text("done")
        if place:
            server.client.delete(f"/jobs/{job['id']}")
        else:
            page.route("**/jobs/*", lambda route: route.fulfill(status=404, json={}))
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/events")):
            turn_away(page, hidden=True)
            page.clock.fast_forward(61_000)
        turn_away(page, hidden=False)
        expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()


def test_times_are_told_by_the_services_clock_where_the_readers_is_wrong(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    server.client.run(name="just run")
    for wrong in (timedelta(minutes=20), timedelta(minutes=-20)):
        page = visit().page
        page.clock.install(time=datetime.now(UTC) + wrong)
        page.goto(f"{server.url}/#/")
        expect(job_row(page, "just run").locator("time")).to_have_text(re.compile("just now|sec. ago"))


def test_the_way_back_leads_to_the_place_in_the_list_and_rules_are_asked_for_as_rows_are_seen(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    for number in range(MANY):
        server.client.submit(name=f"of many {number}", labels={"series": "long"})
    server.client.run(labels={"series": "long"}, name="the last of many")
    one = visit(viewport={"width": 1280, "height": 600})
    page = one.open(server, "/?label=series:long")
    expect(job_row(page, "the last of many").locator(".by-rule")).to_be_visible()
    server.client.run(labels={"series": "long"}, name="comes later")
    expect(job_row(page, "comes later").locator(".by-rule")).to_be_visible()
    asked = [address for address in one.addresses if "/graph" in address]
    assert 1 <= len(asked) <= 30  # of the page's 50 jobs those on the screen, though this one came last
    page.get_by_role("button", name="Older").click()
    row = job_row(page, "of many 0")
    expect(row).to_be_visible()
    row.get_by_role("link", name="of many 0").click()
    expect(page.get_by_role("heading", name="of many 0")).to_be_visible()
    page.go_back()
    expect(row).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("button", name="Newer")).to_be_visible()
    expect(page.get_by_label("Label, as key:value")).to_have_value("series:long")
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(job_row(page, "the last of many")).to_be_visible()
    expect(page.get_by_label("Label, as key:value")).to_have_value("")
