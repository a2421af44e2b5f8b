"""A job's page, as a person uses it: why it failed first, then everything else about it."""

from __future__ import annotations

import base64
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import barriers, is_on_screen
from tests.support.held_job import held_job
from tests.support.page_views import RULES, WIDE, job_row, log_shows, page_workflows
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
SHOWN = "log => log.querySelector('.row').textContent"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("workflows")
    page_workflows(folder)
    with running_server(
        tmp_path_factory.mktemp("page"), WORKFLOWS_DIR=str(folder), MAX_CORES="4", STOP_GRACE_S="1"
    ) as live:
        yield live


@pytest.fixture(scope="module")
def failed(server: LiveServer) -> dict[str, Any]:
    job = server.client.run(name="sixty steps", **WIDE)
    assert job["status"] == "failed", job
    return job


def opened(visit: Callable[..., Visit], server: LiveServer, job: dict[str, Any], **options: Any) -> Page:
    page = visit(**options).open(server, f"/jobs/{job['id']}")
    expect(page.get_by_role("heading", name="About")).to_be_visible()
    return page


def test_on_a_phone_the_step_that_failed_and_its_error_come_first(
    server: LiveServer, failed: dict[str, Any], visit: Callable[..., Visit]
) -> None:
    page = opened(visit, server, failed, viewport={"width": 390, "height": 844})
    expect(page.get_by_role("alert").get_by_role("heading", name="Rule step_37 failed")).to_be_in_viewport()
    wait_until(lambda: is_on_screen(page, "mock_snakemake makes this rule fail"), what="the failing line")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(f"{server.url}/#/")
    expect(page.get_by_text("Rule step_37 failed")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_row_of_the_list_has_the_progress_of_every_rule_and_shows_the_one_that_failed(
    server: LiveServer, failed: dict[str, Any], visit: Callable[..., Visit], tmp_path: Path
) -> None:
    assert failed["name"] == "sixty steps"
    page = visit().open(server)
    bar = job_row(page, "sixty steps").get_by_role(
        "img", name=re.compile("^Rules: 1 failed: step_37; .* 59 comp")
    )
    expect(bar).to_be_visible()
    segments = bar.evaluate("bar => [...bar.children].map(each => [each.title, each.offsetWidth])")
    assert ["step_37: 0 of 1 done, 1 failed", 8] in segments
    assert any(re.match(r"step_\d+ … step_\d+ \(\d+ rules\): ", title) for title, _ in segments)
    with held_job(server.client, tmp_path) as (job_id, gate):
        live = page.locator(f'tr[data-id="{job_id}"]').get_by_role("img")
        expect(live).to_have_attribute("aria-label", re.compile("^Rules: .*5 pending|^Rules: 1 running"))
        gate.write_text("go")
        expect(live).to_have_attribute("aria-label", "Rules: 5 completed")
        expect(live.locator(".rule")).to_have_count(5)
    assert barriers(page) == []


def test_whoever_reads_the_log_is_left_in_peace_when_the_job_is_done(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    with held_job(server.client, tmp_path, lines=300) as (job_id, gate):
        page = opened(visit, server, {"id": job_id})
        log = page.get_by_role("region", name="Log of the job")
        log_shows(log, "line 300")
        log.hover()
        page.mouse.wheel(0, -2000)
        expect(page.get_by_text(re.compile("^live, not following"))).to_be_visible()
        before = log.evaluate(SHOWN)
        gate.write_text("go")
        expect(page.locator(".title .status.completed")).to_be_visible()
        expect(page.get_by_text(re.compile("^live, not following"))).to_have_count(0)
        expect(page.get_by_role("heading", name="Files")).to_be_visible()
        assert log.evaluate(SHOWN) == before


def test_the_graph_and_the_bars_lead_to_the_tasks_of_a_rule_and_a_task_tells_all_of_itself(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="graph", parameters={"mock": {"fail_rule": "report"}})
    page = opened(visit, server, job)
    box = page.locator(".graph a", has_text="report")
    expect(box.locator("g.failed")).to_be_visible()
    box.click()
    expect(page).to_have_url(re.compile("rule=report"))
    tasks = page.get_by_role("region", name="Tasks", exact=True)
    expect(tasks.get_by_role("row")).to_have_count(2)
    page.get_by_role("button", name="Show every rule").click()
    expect(tasks.get_by_role("row", name=re.compile("numbers"))).to_be_visible()
    page.get_by_role("button", name=re.compile("^failed")).click()
    tasks.get_by_role("link", name="report").click()
    expect(page.get_by_role("heading", name="This task failed")).to_be_visible()
    expect(page.get_by_role("region", name="Log logs/report.log")).to_contain_text("as it was told to")
    expect(page.get_by_role("heading", name="Input")).to_be_visible()
    assert barriers(page) == []


def test_the_time_line_has_every_task_and_is_zoomed(
    server: LiveServer, failed: dict[str, Any], visit: Callable[..., Visit]
) -> None:
    page = opened(visit, server, failed)
    bars = page.locator(".timeline a")
    expect(bars).to_have_count(RULES)
    expect(page.get_by_text(re.compile(r"^60 tasks"))).to_be_visible()
    for _ in range(6):
        page.get_by_role("button", name="Zoom in").click()
    wait_until(lambda: bars.count() < RULES, what="fewer tasks in the time line")
    page.get_by_role("button", name="All", exact=True).click()
    expect(bars).to_have_count(RULES)
    failing = page.locator(".timeline a", has=page.locator("rect.failed"))
    failing.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="step_37")).to_be_visible()


def test_a_job_is_retried_and_each_attempt_is_shown(server: LiveServer, visit: Callable[..., Visit]) -> None:
    job = server.client.run(name="again", parameters={"mock": {"fail_rule": "report", "fail_times": 1}})
    page = opened(visit, server, job)
    page.get_by_role("button", name="Retry from failure").click()
    expect(page.get_by_role("heading", name="Rule report failed")).to_have_count(0)
    expect(page.locator(".title .status.completed")).to_be_visible()
    page.get_by_label("Attempt").select_option("1")
    expect(page.get_by_text("An earlier attempt is shown.")).to_be_visible()
    expect(page.locator(".rules .status").first).to_have_text("failed")
    expect(page.get_by_role("region", name="Log logs/report.log")).to_be_visible()


def test_a_running_job_is_followed_and_cancelled(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    with held_job(server.client, tmp_path) as (job_id, _):
        page = opened(visit, server, {"id": job_id})
        expect(page.locator(".title .status.running")).to_be_visible()
        expect(page.get_by_text("following", exact=False)).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Cancel the job").click()
        expect(page.get_by_role("heading", name="Cancelled on request")).to_be_visible()
        expect(page.get_by_role("button", name="Retry from failure")).to_be_visible()


def test_pictures_tables_and_texts_are_shown_and_files_fetched(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="results")
    work = server.data_dir / "jobs" / job["id"] / "work" / "results"
    (work / "plot.png").write_bytes(PNG)
    (work / "table.tsv").write_text("gene\tcount\n<b>BRCA2</b>\t17\n")
    page = opened(visit, server, job)
    page.get_by_role("button", name="Show every file").click()
    page.get_by_role("button", name="Preview results/plot.png").click()
    picture = page.get_by_role("img", name="results/plot.png")
    expect(picture).to_be_visible()
    wait_until(lambda: picture.evaluate("image => image.naturalWidth") == 1, what="the picture")
    page.get_by_role("button", name="Preview results/table.tsv").click()
    expect(page.get_by_role("cell", name="<b>BRCA2</b>")).to_be_visible()
    page.get_by_role("button", name="Preview results/report.txt").click()
    expect(page.locator(".preview pre")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download results/table.tsv").click()
    assert download.value.path().read_text().startswith("gene\tcount")
    assert barriers(page) == []


def test_the_buttons_of_an_ended_job_do_what_they_say(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="it's done", labels={"a": "b"}, cores=2)
    page = opened(visit, server, job, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:2] == ["curl", f"{server.url}/jobs"]
    again = server.client.submit(**json.loads(words[-1]))
    assert {name: again[name] for name in ("name", "labels", "cores", "workflow")} == {
        name: job[name] for name in ("name", "labels", "cores", "workflow")
    }
    with page.expect_download() as crate:
        page.get_by_role("button", name="RO-Crate").click()
    assert crate.value.path().read_bytes().startswith(b"PK")
    with page.expect_download() as report:
        page.get_by_role("button", name="Report", exact=True).click()
    assert b"<html" in report.value.path().read_bytes().lower()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Back", exact=True).click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for ever").click()
    expect(page.get_by_text("The job is deleted.")).to_be_visible()
    assert server.client.get(f"/jobs/{job['id']}").status_code == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_on_a_jobs_page_keeps_people_out(
    server: LiveServer, failed: dict[str, Any], visit: Callable[..., Visit], scheme: str
) -> None:
    page = opened(visit, server, failed, color_scheme=scheme)
    expect(page.locator(".timeline a").first).to_be_visible()
    expect(page.locator(".graph a").first).to_be_visible()
    assert barriers(page) == []
