"""`snakeline check --repair`: what is damaged, and what is done about it."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from api import settings as api_settings
from runner import repair
from runner.errors import RunnerError
from snakeline.failures import Failed

if TYPE_CHECKING:
    from runner.job_damage import Finding
    from runner.repair import Repair

_SHOWN_OF_A_KIND = 20


def run(*, apply: bool) -> Repair:
    """Look, and repair if told to. Raises Failed, SettingsError."""
    try:
        return repair.repair(api_settings.from_environment().runner(), apply=apply)
    except RunnerError as error:
        raise Failed(str(error)) from error


def show(done: Repair, *, as_json: bool, quiet: bool = False) -> None:
    """With `quiet` what is damaged alone."""
    if as_json:
        findings = [_document(finding) for finding in done.findings]
        print(json.dumps({"ok": done.ok, "applied": done.applied, "findings": findings}, indent=2))
        return
    shown: Counter[str] = Counter()
    for finding in done.findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= _SHOWN_OF_A_KIND:
            print(_line(finding, applied=done.applied))
    for kind, count in shown.items():
        if count > _SHOWN_OF_A_KIND:
            print(f"… and {count - _SHOWN_OF_A_KIND} more: {kind} (--json lists them all)")
    if not quiet:
        print(_summary(done))


def _line(finding: Finding, *, applied: bool) -> str:
    size = "" if finding.size_bytes is None else f" ({finding.size_bytes / 2**20:.1f} MiB)"
    line = f"{finding.kind}  {finding.path}{size}: {finding.detail}"
    if finding.is_done:
        return f"{line}; done: {finding.remedy}"
    if finding.failure is not None:
        return f"{line}; not done: {finding.failure}"
    if finding.remedy is not None:
        return f"{line}; {'not done' if applied else 'would be'}: {finding.remedy}"
    return line


def _summary(done: Repair) -> str:
    if not done.findings:
        return "Nothing is damaged."
    left = sum(not f.is_done and (f.remedy is not None or f.failure is not None) for f in done.findings)
    if left and not done.applied:
        return f"{left} to be repaired: add --yes to do it. Nothing was changed."
    repaired = sum(finding.is_done for finding in done.findings)
    return f"{repaired} repaired, {left} not."


def _document(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "path": finding.path,
        "detail": finding.detail,
        "size_bytes": finding.size_bytes,
        "remedy": finding.remedy,
        "done": finding.is_done,
        "failure": finding.failure,
    }
