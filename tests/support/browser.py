"""A real browser, for tests of the page: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.support.server import LiveServer

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
WHY_SKIPPED: Final = "there is no chromium: apt-get install chromium"
_AXE: Final = Path(__file__).parents[1] / "e2e" / "page" / "axe" / "axe.min.js"
_PATIENCE_MS: Final = 20_000
_WCAG_AA: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    # Root has no sandbox of the browser's; it loads nothing but this project's page.
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page in a browser of its own, as one person sees it. What its scripts complain of fails the test."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        # Nothing moves by itself: that is drawn by the processor, over and over.
        usual = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**usual, **options})
        self.context.set_default_timeout(_PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self._hear(message.text))
        self.page.on("request", lambda request: self.addresses.append(request.url))

    def _hear(self, text: str) -> None:
        if re.search(r"Content.Security.Policy|Trusted(HTML|Script)|Uncaught", text):
            self.complaints.append(text)

    def open(self, server: LiveServer, place: str = "/") -> Page:
        self.page.goto(f"{server.url}/#{place}")
        return self.page

    def close(self) -> None:
        self.context.close()
        assert not self.complaints, "\n".join(self.complaints)


def barriers(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA, each with where it is."""
    page.evaluate(_AXE.read_text())
    found: dict[str, Any] = page.evaluate(
        "tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']})", _WCAG_AA
    )
    return [
        f"{each['id']}: {node['html'][:160]} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def is_on_screen(page: Page, text: str) -> bool:
    """Whether a line with this text is within the window and not scrolled out of its own box."""
    seen: bool = page.evaluate(
        """text => {
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          for (let node = walk.nextNode(); node; node = walk.nextNode()) {
            if (!node.data.includes(text)) continue;
            const range = document.createRange();
            range.selectNode(node);
            const box = range.getBoundingClientRect();
            const x = box.left + Math.min(20, box.width / 2), y = box.top + box.height / 2;
            const there = document.elementFromPoint(x, y);
            if (box.height && there && (there.contains(node) || node.parentNode.contains(there))) return true;
          }
          return false;
        }""",
        text,
    )
    return seen
