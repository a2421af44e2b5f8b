"""What somebody sees who has never seen the page: what matters first, and nothing that jumps."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.held_job import held_job
from tests.support.page_views import WIDE, page_workflows
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Locator

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
SCRIPT = "document.querySelector('script').src.replace('app.js', {!r})"
IS_INSIDE = """box => {
  const outer = box.getBoundingClientRect();
  const inner = box.querySelector('g.failed .box').getBoundingClientRect();
  return box.scrollHeight > box.clientHeight && inner.top >= outer.top && inner.bottom <= outer.bottom
    && inner.left >= outer.left && inner.right <= outer.right; }"""


@pytest.fixture(scope="module")
def workflows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workflows")
    page_workflows(folder)
    shutil.copytree((folder / "failing").resolve(), folder / "mended")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, workflows: Path) -> Iterator[LiveServer]:
    with running_server(
        tmp_path_factory.mktemp("page"), WORKFLOWS_DIR=str(workflows), MAX_CORES="4", STOP_GRACE_S="1"
    ) as live:
        yield live


def _height(box: Locator) -> int:
    found: int = box.evaluate("box => box.clientHeight")
    return found


def test_the_example_of_an_empty_list_names_a_workflow_that_is_there(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    (tmp_path / "registered" / "lakes").mkdir(parents=True)
    (tmp_path / "registered" / "lakes" / "Snakefile").write_text("rule all:\n")
    with running_server(tmp_path, WORKFLOWS_DIR=str(tmp_path / "registered")) as server:
        page = visit().open(server)
        expect(page.locator(".empty.card pre")).to_contain_text('{"workflow": "lakes"')


def test_of_many_tasks_and_a_large_graph_what_failed_is_seen_first(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="sixty steps", **WIDE)
    page = visit().open(server, f"/jobs/{job['id']}")
    rows = page.get_by_role("region", name="Tasks", exact=True).locator("tbody tr")
    expect(rows.first).to_contain_text("step_37")
    expect(rows.filter(has_text="step_37")).to_have_count(1)
    graph = page.locator(".graph")
    wait_until(lambda: graph.count() == 1 and graph.evaluate(IS_INSIDE), what="the failed rule in the graph")
    page.get_by_role("navigation", name="On this page").get_by_role("button", name="Files").click()
    expect(page.get_by_role("heading", name="Files")).to_be_in_viewport()
    page.get_by_role("alert").get_by_role("link", name="step_37").click()
    expect(page.get_by_role("region", name="The error")).to_contain_text("as it was told to")


def test_results_that_come_while_a_job_runs_are_listed_and_the_log_keeps_its_height(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    with held_job(server.client, tmp_path) as (job_id, gate):
        page = visit().open(server, f"/jobs/{job_id}")
        expect(page.get_by_text("No results yet")).to_be_visible()
        log = page.get_by_role("region", name="Log of the job")
        expect(page.get_by_text("following", exact=False)).to_be_visible()
        before = _height(log)
        gate.write_text("go")
        expect(page.locator(".title .status.completed")).to_be_visible()
        expect(page.get_by_text(re.compile(r"^\d+ results?$"))).to_be_visible()
        expect(page.get_by_role("button", name="Preview results/report.txt")).to_be_visible()
        expect(page.get_by_role("button", name="Preview Snakefile")).to_have_count(0)
        assert _height(log) == before


def test_whoever_has_changed_the_workflow_is_told_that_a_retry_does_not_run_it(
    server: LiveServer, workflows: Path, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(workflow="mended", name="fails", parameters={"mock": {"fail_rule": "check"}})
    assert job["status"] == "failed", job
    page = visit().open(server, f"/jobs/{job['id']}")
    expect(page.get_by_role("button", name="Retry from failure")).to_be_visible()
    expect(page.get_by_role("button", name="Preview").first).to_be_visible()
    told = page.get_by_text("The workflow has changed since this job was submitted")
    expect(told).to_have_count(0)
    with (workflows / "mended" / "Snakefile").open("a") as snakefile:
        snakefile.write("\n# mended\n")
    page.reload()
    expect(told).to_be_visible()
    page.get_by_role("link", name="a clone").click()
    expect(page.get_by_role("heading", name="New job like fails")).to_be_visible()


def test_a_rule_keeps_its_place_while_its_tasks_come_and_go(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    page = visit().open(server)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    none = {"failed": 0, "running": 0, "completed": 0, "up_to_date": 0, "total": 4}
    counts = [
        {**none, "failed": 1, "completed": 3},
        {**none, "running": 1, "completed": 1},
        {**none, "completed": 2},
        none,
        {**none, "completed": 3, "up_to_date": 1},
    ]
    places = page.evaluate(
        f"async counts => {{ const job = await import({SCRIPT.format('job.js')});"
        " return counts.map(each => job.place({ counts: each })); }",
        counts,
    )
    assert places == [0, 1, 1, 2, 3]


def test_a_parameter_is_called_by_its_title_and_its_own_name_stands_beside_it(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    page = visit().open(server)
    label = page.evaluate(
        f"async schema => {{ const form = await import({SCRIPT.format('schema_form.js')});"
        " return form.objectForm(schema, {}, { legend: 'P' }).element.querySelector('label').textContent; }",
        {"properties": {"n": {"type": "integer", "title": "Number of stations"}}},
    )
    assert label == "Number of stations n"


def test_on_a_phone_every_file_has_its_buttons_within_the_page(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(name="results")
    page = visit(viewport={"width": 390, "height": 844}).open(server, f"/jobs/{job['id']}")
    fetch = page.get_by_role("button", name="Download results/report.txt").first
    fetch.scroll_into_view_if_needed()
    box = fetch.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.querySelector('[aria-label=Files]').scrollLeft") == 0


def test_one_failed_task_of_ten_thousand_is_seen_in_the_bar(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    page = visit().open(server)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    width = page.evaluate(
        f"async () => {{ const words = await import({SCRIPT.format('words.js')});"
        " const bar = words.bar({ completed: 9999, failed: 1 }, 10000, 'Tasks');"
        " document.body.append(bar); return bar.querySelector('.failed').offsetWidth; }"
    )
    assert width >= 5
