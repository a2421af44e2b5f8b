"""The page where there is much: 100,000 jobs, a log of 1 GiB. Figures are recorded with the results."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import expect

from benchmarks.store_pages import fill
from runner.stores.sql import SqlStore
from tests.support.page_views import moved
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator, Page

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
JOBS: Final = 100_000
LOG_BYTES: Final = 1 << 30
MOST_PAINT_MS: Final = 1000
MOST_HEAP_BYTES: Final = 64 << 20
MOST_FRAME_MS: Final = 50
MOST_RESIDENT_BYTES: Final = 400 << 20
FRAMES: Final = """
() => { window.frames_ms = []; let last = performance.now();
  const tick = now => {
    window.frames_ms.push(now - last);
    last = now;
    window.ticking = requestAnimationFrame(tick);
  };
  window.ticking = requestAnimationFrame(tick); }
"""


def useful_ms(page: Page) -> float:
    """When the list was on the screen; the page's policy leaves no other way to wait for it."""
    return wait_until(lambda: float(page.evaluate("window.useful_ms ?? 0")), what="the list")


def has_passed(log: Locator, target: int) -> None:
    first = "log => Number(log.querySelector('.row').dataset.offset)"
    wait_until(lambda: log.evaluate(first) > target, what=f"the log to be behind byte {target}")


def resident_bytes(page: Page) -> int:
    """What the tab's process has in memory: of the browser's renderers, the largest."""
    assert page.context.browser is not None
    session = page.context.browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = []
    for process in processes:
        if process["type"] == "renderer":
            told = Path(f"/proc/{process['id']}/status").read_text()
            sizes.append(int(re.search(r"VmRSS:\s+(\d+) kB", told)[1]) << 10)  # type: ignore[index]
    return max(sizes)


def test_the_first_useful_paint_comes_within_a_second_with_100000_jobs(
    visit: Callable[..., Visit], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    SqlStore.open(f"sqlite:///{data_dir}/snakeline.db").close()
    fill(data_dir / "snakeline.db", JOBS)
    with running_server(tmp_path, MAX_CORES="2", MOCK_MIN_S="3600", MOCK_MAX_S="3600") as server:
        times = []
        for _ in range(5):
            one = visit()  # with nothing kept from the visit before
            one.page.add_init_script(
                """new MutationObserver((_, watch) => {
                  if (document.querySelectorAll('table.jobs tbody tr').length < 50) return;
                  watch.disconnect();
                  const told = () => { window.useful_ms = performance.now(); };
                  requestAnimationFrame(() => requestAnimationFrame(told));
                }).observe(document, {subtree: true, childList: true});"""
            )
            page = one.open(server)
            times.append(useful_ms(page))
            expect(page.get_by_text(re.compile(r"^100,000 jobs|^at least 100,000"))).to_be_visible()
            expect(page.locator(".position").first).to_have_text(re.compile(r"^#\d+ in the queue$"))
        record_property("first_useful_paint_ms", [round(each) for each in times])
        # The best of them: what else the machine does at the moment is not the page's.
        assert min(times) <= MOST_PAINT_MS, times


def test_a_log_of_a_gibibyte_scrolls_in_little_memory(
    visit: Callable[..., Visit], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with running_server(tmp_path, LOG_LIMIT_MB="2048") as server:
        job_id = server.client.submit(parameters={"mock": {"output_bytes": LOG_BYTES}})["id"]
        server.client.wait_for(job_id, "completed", timeout_s=300)
        one = visit()
        page = one.page
        loaded: list[int] = []
        page.on("response", lambda answer: loaded.append(int(answer.headers.get("content-length", 0))))
        page.goto(f"{server.url}/#/jobs/{job_id}/log")
        log = page.get_by_role("region", name="Log of the job")
        expect(log.locator(".row .text").first).not_to_be_empty()
        log.hover()
        page.evaluate(FRAMES)
        first = "log => log.querySelector('.row').dataset.offset"
        for place in (0.1, 0.37, 0.93, 0.5):  # the bar is dragged, and the wheel turned there
            before = log.evaluate(first)
            log.evaluate(
                "(log, part) => { log.scrollTop = part * (log.scrollHeight - log.clientHeight); }", place
            )
            moved(log, first, before, f"the log at {place}")
            offset = int(log.evaluate(first))
            assert abs(offset / LOG_BYTES - place) < 0.01
            target = offset + 16 * 200
            for _ in range(40):
                page.mouse.wheel(0, 240)
            has_passed(log, target)
        page.get_by_role("button", name="Wrap").click()
        expect(log).to_have_class(re.compile("wrap"))
        log.hover()
        for place in (0.25, 0.8):
            before = log.evaluate(first)
            log.evaluate(
                "(log, part) => { log.scrollTop = part * (log.scrollHeight - log.clientHeight); }", place
            )
            moved(log, first, before, f"the wrapped log at {place}")
            offset = int(log.evaluate(first))
            assert abs(offset / LOG_BYTES - place) < 0.01
            for _ in range(20):
                page.mouse.wheel(0, 240)
            has_passed(log, offset + 16 * 100)
        page.get_by_role("button", name="Wrap").click()
        page.get_by_role("button", name="Jump to end").click()
        expect(log.get_by_text("steps (100%) done").last).to_be_visible()
        frames = page.evaluate("() => { cancelAnimationFrame(window.ticking); return window.frames_ms; }")
        devtools = one.context.new_cdp_session(page)
        devtools.send("HeapProfiler.collectGarbage")
        heap = devtools.send("Runtime.getHeapUsage")["usedSize"]
        nodes = page.evaluate("document.querySelectorAll('*').length")
        resident = resident_bytes(page)
        slow = statistics.quantiles(frames, n=20)[-1]
        figures = {
            "frames": len(frames),
            "median_ms": statistics.median(frames),
            "p95_ms": slow,
            "max_ms": max(frames),
            "heap": heap,
            "resident": resident,
            "elements": nodes,
            "loaded": sum(loaded),
        }
        for name, value in figures.items():
            record_property(name, value)
        assert heap < MOST_HEAP_BYTES
        assert resident < MOST_RESIDENT_BYTES
        assert sum(loaded) < LOG_BYTES // 20
        assert slow < MOST_FRAME_MS, figures
