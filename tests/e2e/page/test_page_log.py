"""The view of a log: live, searched, linked to, and of any length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.browser import barriers
from tests.support.page_views import log_shows, moved, open_log
from tests.support.server import LiveServer, running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.browser import Visit

pytestmark = pytest.mark.soak
LINES = 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(
        tmp_path_factory.mktemp("page"), MAX_CORES="4", STOP_GRACE_S="1", LOG_LIMIT_MB="2"
    ) as live:
        yield live


def test_a_log_is_searched_numbered_linked_to_and_downloaded(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(parameters={"mock": {"lines": LINES}})
    whole = server.client.get(f"/jobs/{job['id']}/logs").text
    page = visit().page
    log = open_log(page, server, job["id"])
    page.keyboard.press("/")
    page.keyboard.type("15000\n")
    log_shows(log, "15000")
    expect(log.locator("mark").first).to_have_text("15000")
    found = log.locator(".row.here")
    line = next(n for n, each in enumerate(whole.split("\n"), 1) if "15000" in each)
    expect(found.locator(".number")).to_have_text(str(line))
    address = found.locator(".number").get_attribute("href")
    offset = int(re.search(r"at=(\d+)", address or "")[1])  # type: ignore[index]
    assert whole[offset : offset + 200].split("\n")[0] == whole.split("\n")[line - 1]
    page.get_by_role("button", name="Top").click()
    log_shows(log, whole.split("\n")[0])
    page.keyboard.press("Escape")
    page.goto(f"{server.url}/{address}")
    page.reload()
    log_shows(log, whole.split("\n")[line - 1])
    expect(log.locator(".row.here .number")).to_have_text(str(line))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.path().read_text() == whole
    page.get_by_label("Search the log").fill("nowhere in it")
    page.get_by_label("Search the log").press("Enter")
    expect(page.get_by_text("not found behind here")).to_be_visible()


def test_lines_are_numbered_right_while_a_log_grows_also_behind_very_long_ones(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    page = visit().open(server)
    numbered, wrong = page.evaluate(
        """async () => {
          const assets = document.querySelector("link[rel=modulepreload]").href;
          const { LogLines } = await import(new URL("log_lines.js", assets));
          const { LineNumbers } = await import(new URL("log_numbers.js", assets));
          let log = "";
          const read = async (offset, limit) => {
            const bytes = new TextEncoder().encode(log.slice(offset, offset + limit));
            return { bytes, offset, size: log.length, gap: null };
          };
          const lines = new LogLines(read);
          const numbers = new LineNumbers(lines);
          let [written, numbered, wrong] = [0, 0, 0];
          for (let round = 0; round < 20; round += 1) {
            for (let end = log.length + 9_000 + 1_777 * round; log.length < end;) {
              written += 1;
              log += `${written} ${"x".repeat(written % 90 === 0 ? 15_000 : (written * 37) % 150)}\n`;
            }
            await lines.look();
            await numbers.count();
            for (let at = await lines.at(0); at; at = await lines.next(at)) {
              const line = lines.line(at);
              if (line.isContinued || numbers.of(at) === null) continue;
              numbered += 1;
              if (!line.text.startsWith(`${numbers.of(at)} `)) wrong += 1;
            }
          }
          return [numbered, wrong];
        }"""
    )
    assert (numbered > 1000, wrong) == (True, 0)


def test_every_line_is_shown_once_and_in_order_however_one_scrolls(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(parameters={"mock": {"lines": LINES}})
    lines = server.client.get(f"/jobs/{job['id']}/logs").text.split("\n")
    page = visit().page
    log = open_log(page, server, job["id"])
    rows = """log => [...log.querySelectorAll('.row')].map(
      row => [row.querySelector('.number').textContent, row.querySelector('.text').textContent])"""
    log.hover()
    for move in (300, 700, 5000, -200, 100_000, -900, 40_000, -1_000_000, 250, 10_000_000):
        before = log.evaluate(rows)
        page.mouse.wheel(0, move)
        moved(log, rows, before, f"{move} pixels")
        expect(log.locator(".row .number").last).to_have_text(re.compile(r"^\d+$"))
        shown = log.evaluate(rows)
        numbers = [int(number) for number, _ in shown]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert [text for _, text in shown] == [lines[number - 1] for number in numbers]
    log_shows(log, lines[-2])


def test_colours_are_shown_and_long_lines_wrapped_on_request(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    text = f"\x1b[1;31mred and bold\x1b[0m plain \x1b]0;title\x07 \x1b[2K{'long ' * 900}end of it"
    job = server.client.run(parameters={"mock": {"stderr_text": text}})
    place = server.client.get(f"/jobs/{job['id']}/logs").text.index("red and bold")
    page = visit(color_scheme="dark").page
    log = open_log(page, server, job["id"], f"?at={place}")
    red = log.get_by_text("red and bold")
    expect(red).to_have_css("font-weight", "700")
    expect(red).to_have_class(re.compile(r"\bf1\b"))
    assert "\x1b" not in (log.text_content() or "")
    row = log.locator(".row", has=page.get_by_text("red and bold"))
    height = row.bounding_box()["height"]  # type: ignore[index]
    page.get_by_role("button", name="Wrap").click()
    wait_until(lambda: row.bounding_box()["height"] > 3 * height, what="the line to be wrapped")  # type: ignore[index]
    assert log.evaluate("log => log.querySelector('.clip').scrollWidth <= log.clientWidth")
    assert barriers(page) == []


def test_what_a_long_log_has_lost_is_told_where_it_is_missing(
    server: LiveServer, visit: Callable[..., Visit]
) -> None:
    job = server.client.run(parameters={"mock": {"output_bytes": 6 * 2**20}})
    skipped = server.client.get(f"/jobs/{job['id']}/logs?limit=1").headers["x-log-skipped"]
    start, end = map(int, skipped.split("-"))
    page = visit().page
    log = open_log(page, server, job["id"], f"?at={start}")
    expect(log.locator(".row.skipped")).to_contain_text(f"{end - start:,} bytes are not kept")
    after = server.client.get(f"/jobs/{job['id']}/logs?offset={end}&limit=300").text.split("\n")
    texts = log.locator(".row .text").all_text_contents()
    place = next(n for n, each in enumerate(texts) if "are not kept" in each)
    assert texts[place + 1] == after[0]
    page.get_by_role("button", name="Jump to end").click()
    log_shows(log, "steps (100%) done")
