"""The page, as a person uses it: what must never break. What else it does is tested by `make soak`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.browser import is_on_screen
from tests.support.held_job import held_job
from tests.support.keys import KeyedServer, keyed_server
from tests.support.page_views import (
    RULES,
    WIDE,
    job_row,
    log_shows,
    open_log,
    page_workflows,
    sign_in,
)
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.browser import Visit

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("workflows")
    page_workflows(folder)
    data = tmp_path_factory.mktemp("page")
    with running_server(data, WORKFLOWS_DIR=str(folder), MAX_CORES="4", STOP_GRACE_S="1") as live:
        yield live


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[KeyedServer]:
    with keyed_server(tmp_path) as server:
        yield server


def test_an_empty_list_teaches_how_to_submit_and_shows_what_comes_as_it_comes(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"]).open(server)
    expect(page.get_by_text("The engine is the stand-in")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command.startswith(f"curl {server.url}/jobs ")
    gate = tmp_path / "gate"
    server.client.submit(name="first", parameters={"mock": {"hold": str(gate)}}, labels={"project": "atlas"})
    expect(job_row(page, "first").get_by_text("running")).to_be_visible()
    expect(job_row(page, "first").locator("svg.icon.running")).to_be_visible()
    assert page.get_by_role("button", name="running 1").count() <= 1
    gate.write_text("go")
    expect(job_row(page, "first").get_by_text("completed")).to_be_visible()
    expect(job_row(page, "first").locator(".figure")).to_have_text(re.compile(r"^(\d+)/\1$"))
    expect(page.get_by_role("button", name="completed 1")).to_be_visible()
    assert job_row(page, "first").locator("time").get_attribute("title") is not None


def test_of_a_job_that_failed_among_sixty_rules_the_failing_line_is_one_click_away(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="sixty steps", **WIDE)
    assert job["status"] == "failed", job
    page = visit().open(server)
    page.get_by_role("link", name="sixty steps").click()
    expect(page.get_by_role("alert").get_by_role("heading", name="Rule step_37 failed")).to_be_visible()
    wait_until(lambda: is_on_screen(page, "mock_snakemake makes this rule fail"), what="the failing line")
    expect(page.get_by_role("alert").get_by_role("link", name="step_37")).to_be_visible()
    # The inline log, too, opens where the error is told and not at its end or beginning.
    log = page.get_by_role("region", name="Log of the job")
    expect(log.locator(".row.here")).to_contain_text("rule step_37")
    first = page.locator(".rules a").first
    expect(first).to_have_text("step_37")
    expect(page.locator(".rules .status").first).to_have_text("failed")
    page.get_by_role("button", name="Show all 61 rules").click()
    expect(page.locator(".rules a")).to_have_count(RULES + 1)


def test_a_live_log_sticks_to_its_end_and_lets_go_when_one_scrolls_up(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    page = visit().page
    with held_job(server.client, tmp_path, lines=300) as (job_id, gate):
        log = open_log(page, server, job_id)
        expect(page.get_by_text(re.compile("^following"))).to_be_visible()
        log_shows(log, "line 300")
        log.hover()
        page.mouse.wheel(0, -2000)
        expect(page.get_by_text(re.compile("^live, not following"))).to_be_visible()
        before = log.locator(".row").first.text_content()
        page.get_by_role("button", name="Jump to end").click()
        expect(page.get_by_text(re.compile("^following"))).to_be_visible()
        gate.write_text("go")
        log_shows(log, "steps (100%) done")
        assert log.locator(".row").first.text_content() != before
    expect(page.locator(".title .status.completed")).to_be_visible()


def test_names_from_outside_are_text_wherever_they_are_shown(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name=EVIL, labels={"note": EVIL}, parameters={"mock": {"stderr_text": EVIL}})
    page = visit().open(server)
    expect(page.get_by_role("link", name=EVIL)).to_be_visible()
    page.get_by_role("link", name=EVIL).click()
    expect(page.get_by_role("heading", name=EVIL)).to_be_visible()
    expect(page.locator(".log .text", has_text=EVIL).first).to_be_visible()
    page.goto(f"{server.url}/#/new?from={job['id']}")
    expect(page.get_by_label("Name", exact=True)).to_have_value(EVIL)
    assert page.locator("img, main script").count() == 0
    assert page.title() != "owned"


def test_nothing_is_shown_without_a_key_and_the_key_stays_out_of_every_address(
    keyed: KeyedServer, visit: Callable[..., Visit]
) -> None:
    keyed.admin.run(name="secret plan")
    one = visit()
    page = one.open(keyed.server)
    expect(page.get_by_label("API key or token")).to_be_focused()
    sign_in(page, "snk_0000000000." + "A" * 43)
    expect(page.get_by_text("The API key is unknown, revoked, expired or mistyped.")).to_be_visible()
    assert "secret plan" not in page.content()
    sign_in(page, keyed.first_key)
    expect(page.get_by_role("link", name="secret plan")).to_be_visible()
    page.reload()
    page.get_by_role("link", name="secret plan").click()
    expect(page.get_by_role("heading", name="secret plan")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).first.click()
    assert download.value.path().stat().st_size > 0
    secret = keyed.first_key.split(".")[1]
    assert not [address for address in one.addresses if secret in address]
    assert one.context.cookies() == []
    assert secret not in page.evaluate("JSON.stringify({...localStorage})")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key or token")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
