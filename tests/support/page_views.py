"""What the tests of the page look for, and the workflow of many rules that they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import expect

from tests.support.engines import BUNDLED
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from tests.support.server import LiveServer

RULES: Final = 60
WIDE: Final[dict[str, Any]] = {
    "workflow": "sixty",
    "parameters": {"mock": {"fail_rule": "step_37"}},
    "options": {"keep_going": True},
}
"""A job whose rule 37 of 60 fails."""


def page_workflows(folder: Path) -> None:
    """The bundled `demo` and `failing`, and `sixty`, which has sixty rules beside each other."""
    for name in ("demo", "failing"):
        (folder / name).symlink_to(BUNDLED / name)
    (folder / "sixty").mkdir()
    every = ", ".join(f'"out/{n}.txt"' for n in range(RULES))
    rules = [
        f'rule step_{n:02}:\n    output: "out/{n}.txt"\n    shell: "echo {n} > {{output}}"\n'
        for n in range(RULES)
    ]
    (folder / "sixty" / "Snakefile").write_text("\n".join([f"rule all:\n    input: {every}\n", *rules]))


def job_row(page: Page, name: str) -> Locator:
    """The line of a job in the list."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def open_log(page: Page, server: LiveServer, job_id: str, more: str = "") -> Locator:
    page.goto(f"{server.url}/#/jobs/{job_id}/log{more}")
    log = page.get_by_role("region", name="Log of the job")
    expect(log.locator(".row .text").first).not_to_be_empty()
    return log


def log_shows(log: Locator, text: str) -> None:
    """Waits until a line with this text is within the log's box."""
    wait_until(lambda: _is_shown(log, text), timeout_s=20, what=f"the log to show {text!r}")


def moved(log: Locator, script: str, before: object, what: str) -> None:
    """Waits until `script` says of the log something else than `before`."""
    wait_until(lambda: log.evaluate(script) != before, timeout_s=20, what=what)


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Sign in", exact=True).click()


def _is_shown(log: Locator, text: str) -> bool:
    shown: bool = log.evaluate(
        """(log, text) => {
          const box = log.getBoundingClientRect();
          return [...log.querySelectorAll('.row')].some((row) => {
            const at = row.getBoundingClientRect();
            return row.textContent.includes(text) && at.top >= box.top - 1 && at.bottom <= box.bottom + 1;
          });
        }""",
        text,
    )
    return shown
