"""Curves of what a job uses, as a person reads them: live, with limits, by mouse, keys and ears."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from runner.attempt_files import AttemptFiles, ExitRecord
from runner.usage_samples import UsageSample, UsageSamples
from tests.support.browser import barriers
from tests.support.held_job import held_job
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Page, Route

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
HOURS = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("page"), MAX_CORES="4", STOP_GRACE_S="1") as live:
        yield live


@pytest.fixture(scope="module")
def long_one(server: LiveServer) -> dict[str, Any]:
    """As if it had taken thirty hours: a core for the first half, two for the second."""
    job = server.client.run(name="thirty hours", cores=4, memory_mb=2048)
    files = AttemptFiles.of(server.data_dir, job["id"], 1)
    record = ExitRecord.load(Path(files.exit).read_bytes())
    at = [HOURS * 36 * n for n in range(1, 101)]
    samples = [UsageSample(s, s + max(0, s - at[49]), (4 + n // 10) << 27, 3, 0, 0) for n, s in enumerate(at)]
    Path(files.usage).write_bytes(UsageSamples(record.started_at, 64.0, tuple(samples)).dump())
    values = {name: getattr(record, name) for name in record.__slots__}
    values |= {"ended_at": record.started_at + at[-1], "cpu_s": float(samples[-1].cpu_s)}
    Path(files.exit).write_bytes(ExitRecord(**values).dump())
    return job


def curves_of(page: Page) -> Locator:
    return page.locator("section", has=page.get_by_role("heading", name="Use of the machine"))


def test_a_running_jobs_curves_grow_until_it_ends(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    with held_job(server.client, tmp_path) as (job_id, gate):
        page = visit().open(server, f"/jobs/{job_id}")
        memory = curves_of(page).get_by_role(
            "img", name=re.compile(r"^Memory as time goes by: at most \d+ MiB$")
        )
        expect(memory).to_be_visible()
        expect(
            curves_of(page).get_by_text(re.compile(r"now \d+ MiB, most \d+ MiB, no limit set"))
        ).to_be_visible()
        curves_of(page).get_by_text("As a table").click()
        rows = curves_of(page).get_by_role("row")
        seen = rows.count()
        expect(rows.nth(seen)).to_be_attached()  # one more
        gate.write_text("go")
        expect(page.locator(".title .status.completed")).to_be_visible()
        expect(curves_of(page).get_by_text(re.compile("in cores: now"))).to_have_count(0)


@pytest.mark.parametrize("trouble", ["hidden", "refused"])
def test_the_end_is_seen_though_nobody_looked_or_the_service_was_away_just_then(
    server: LiveServer, visit: Callable[..., Visit], tmp_path: Path, trouble: str
) -> None:
    refused: list[Route] = []

    def answered(route: Route) -> None:
        if server.client.get(f"/jobs/{job_id}").json()["completed_at"] is None:
            route.continue_()
        else:
            refused.append(route)
            route.abort()

    with held_job(server.client, tmp_path) as (job_id, gate):
        page = visit().open(server, f"/jobs/{job_id}")
        now = curves_of(page).get_by_text(re.compile("in cores: now"))
        expect(now).to_be_visible()
        if trouble == "hidden":
            page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
        else:
            page.route("**/usage?*", answered)
        gate.write_text("go")
        expect(page.locator(".title .status.completed")).to_be_visible()
        if trouble == "refused":
            wait_until(lambda: page.evaluate("1") and len(refused) > 1, what="the end to be asked for again")
            page.unroute("**/usage?*")
        expect(now).to_have_count(0)
        expect(curves_of(page).get_by_text("in cores: most")).to_be_visible()


def test_the_curves_are_read_by_keys_and_by_the_mouse(
    server: LiveServer, long_one: dict[str, Any], visit: Callable[..., Visit]
) -> None:
    page = visit().open(server, f"/jobs/{long_one['id']}")
    curves = curves_of(page)
    expect(
        curves.get_by_role("img", name="Processor as time goes by: at most 2 cores, limit 4 cores")
    ).to_be_visible()
    expect(curves.get_by_text("limit 2.0 GiB", exact=True)).to_be_visible()
    slider = curves.get_by_role("slider", name="Time since the start")
    told = curves.locator("output")
    expect(told).to_have_text("at 1 d 6 h 0 min · 2 cores · 1.6 GiB · 3 processes")
    slider.press("Home")
    expect(told).to_have_text("at 18 min 0 s · 1 core · 512 MiB · 3 processes")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "at 36 min 0 s · 1 core · 512 MiB · 3 processes")
    curve = curves.locator(".plot").first
    box = curve.bounding_box()
    assert box is not None
    curve.hover(position={"x": 62 + (box["width"] - 70) * 0.755, "y": 60})
    expect(told).to_have_text("at 22 h 48 min · 2 cores · 1.4 GiB · 3 processes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_curves_keep_nobody_out_and_fit_a_phone(
    server: LiveServer, long_one: dict[str, Any], visit: Callable[..., Visit], scheme: str
) -> None:
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme).open(
        server, f"/jobs/{long_one['id']}"
    )
    curves = curves_of(page)
    curves.get_by_text("As a table").click()
    expect(curves.get_by_role("row")).to_have_count(51)
    for part in curves.locator("svg, input, output, details").all():
        box = part.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
    assert barriers(page) == []


def test_each_attempt_has_its_own_and_a_short_one_says_why_it_has_none(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(parameters={"mock": {"fail_rule": "report"}}, max_retries=1)
    page = visit().open(server, f"/jobs/{job['id']}")
    expect(curves_of(page).get_by_text("there are no curves")).to_be_visible()
    with page.expect_request(lambda request: request.url.endswith("usage?attempt=1")):
        page.get_by_label("Attempt").select_option("1")
    expect(curves_of(page).get_by_text("there are no curves")).to_be_visible()
