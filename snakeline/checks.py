"""`snakeline check`: what the service needs, what of it is there, and what to do about the rest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from api import auth_settings
from api import settings as api_settings
from runner import checkup
from runner.health import Check


@dataclass(frozen=True, slots=True)
class Report:
    """Every check that could be made; without valid settings there is only that one."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def run() -> Report:
    """Look at everything the service would use. A service that runs on the same data is not disturbed."""
    try:
        given = api_settings.from_environment()
    except api_settings.SettingsError as error:
        return Report((Check("settings", ok=False, detail=str(error)),))
    callers = Check("callers", ok=True, detail=auth_settings.who_may_call(given))
    return Report((Check("settings", ok=True, detail="valid"), callers, *checkup.check(given.runner())))


def show(report: Report, *, as_json: bool, quiet: bool = False) -> None:
    """With `quiet` what is wrong alone."""
    if as_json:
        document = {"ok": report.ok, "checks": [asdict(check) for check in report.checks]}
        print(json.dumps(document, indent=2))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for check in report.checks:
        if quiet and check.ok:
            continue
        mark = Text("✓ ok", "green") if check.ok else Text("✗ wrong", "red")
        table.add_row(mark, check.name, Text(check.detail))
    Console(highlight=False).print(table)
