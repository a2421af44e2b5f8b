"""The list of jobs, as a person uses it: live, filtered, by mouse and by keyboard."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.browser import barriers
from tests.support.held_job import held_job
from tests.support.page_views import job_row
from tests.support.server import LiveServer, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
FAILS = {"mock": {"fail_rule": "report"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("page"), MAX_CORES="2", STOP_GRACE_S="1") as live:
        yield live


def test_filters_and_search_stand_in_the_address(server: LiveServer, visit: Callable[..., Visit]) -> None:
    server.client.run(name="good one", labels={"project": "borealis"})
    server.client.run(name="bad one", parameters=FAILS)
    page = visit().open(server)
    expect(job_row(page, "good one")).to_be_visible()
    page.get_by_role("button", name=re.compile("^failed")).click()
    expect(job_row(page, "bad one")).to_be_visible()
    expect(job_row(page, "good one")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"#/\?status=failed$"))
    expect(job_row(page, "bad one").get_by_text("Rule report failed")).to_be_visible()
    page.reload()
    expect(job_row(page, "bad one")).to_be_visible()
    expect(job_row(page, "good one")).to_have_count(0)
    page.get_by_role("button", name=re.compile("^failed")).click()
    page.keyboard.press("/")
    page.keyboard.type("good")
    expect(job_row(page, "bad one")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"#/\?q=good$"))
    page.get_by_role("button", name="project: borealis").click()
    expect(page).to_have_url(re.compile("label=project%3Aborealis"))
    page.get_by_label("Search by name or id").fill("no such job")
    expect(page.get_by_text("No job matches.")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(job_row(page, "bad one")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Finished per hour"))).to_be_visible()


def test_the_list_is_walked_and_a_job_opened_without_a_mouse(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    server.client.run(name="older")
    server.client.run(name="newer")
    page = visit().open(server)
    expect(job_row(page, "newer")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="older", exact=True)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.get_by_text("1 job selected")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="older")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    name = page.get_by_label("Name", exact=True)
    name.click()
    page.keyboard.type("j?gn/x")  # letters, where letters are written
    expect(name).to_have_value("j?gn/x")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    expect(job_row(page, "newer")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Search by name or id")).to_be_focused()


def test_many_are_cancelled_and_tried_again_at_once_and_the_queue_has_an_order(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    page = visit().open(server)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(held_job(server.client, tmp_path))
        for name, priority in (("waits longer", 0), ("goes first", 5)):
            server.client.submit(name=name, priority=priority)
        expect(job_row(page, "goes first").get_by_text("#1 in the queue")).to_be_visible()
        expect(job_row(page, "waits longer").get_by_text("#2 in the queue")).to_be_visible()
        page.get_by_label("Select waits longer").check()
        page.get_by_label("Select goes first").check()
        page.get_by_role("button", name="Cancel 2").click()
        page.get_by_role("button", name="Cancel them").click()
        expect(job_row(page, "waits longer").get_by_text("cancelled")).to_be_visible()
        expect(job_row(page, "goes first").get_by_text("cancelled")).to_be_visible()
        page.get_by_label("Select goes first").check()
        page.get_by_role("button", name="Retry 1").click()
        expect(job_row(page, "goes first").get_by_text("pending")).to_be_visible()
    expect(job_row(page, "goes first").get_by_text("completed")).to_be_visible()


def test_a_lost_connection_is_told_and_what_was_missed_is_caught_up(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    with running_server(tmp_path) as first:
        page = visit().open(first)
        first.client.run(name="before")
        expect(job_row(page, "before").get_by_text("completed")).to_be_visible()
        port = first.url.rpartition(":")[2]
        first.stop()
        expect(page.get_by_text("The connection to the service is lost.")).to_be_visible()
        with running_server(tmp_path, PORT=port) as again:
            again.client.run(name="meanwhile")
            expect(page.get_by_text("Connected again")).to_be_visible()
            expect(job_row(page, "meanwhile").get_by_text("completed")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_on_the_list_keeps_people_out(
    server: LiveServer, visit: Callable[..., Visit], scheme: str
) -> None:
    server.client.run(name="another")  # there are no curves of one job
    server.client.run(name=f"for all, {scheme}", labels={"a": "b"}, parameters=FAILS)
    page = visit(color_scheme=scheme).open(server)
    expect(job_row(page, f"for all, {scheme}")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^Running"))).to_be_visible()
    assert barriers(page) == []
    page.get_by_label("Colours").select_option("dark" if scheme == "light" else "light")
    shade = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (shade == "rgb(255, 255, 255)") == (scheme == "dark")
