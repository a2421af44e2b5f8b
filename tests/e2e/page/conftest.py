"""One browser for a module, and a window of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import CHROMIUM, WHY_SKIPPED, Visit, open_browser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(WHY_SKIPPED)
    with open_browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def new(**options: Any) -> Visit:
        visits.append(Visit(browser, **options))
        return visits[-1]

    yield new
    for each in visits:
        each.close()
