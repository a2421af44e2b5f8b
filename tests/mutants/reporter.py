"""A pytest plugin that tells, line by line in a file, what the tests of a trial do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import runner

if TYPE_CHECKING:
    import pytest

VARIABLE = "MUTANTS_REPORT"


def _tell(**facts: object) -> None:
    path = os.environ[VARIABLE]  # noqa: TID251 - not a setting of the service: how a trial is told
    with open(path, "a", encoding="utf-8") as report:
        report.write(json.dumps(facts) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several workers: the one that leads them reports
        config.pluginmanager.unregister(name="tests.mutants.reporter")
    else:
        _tell(runner=next(iter(runner.__path__)))


def pytest_runtest_logstart(nodeid: str) -> None:
    _tell(begun=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        # As pytest-timeout words it.
        _tell(failed=report.nodeid, hangs="Timeout (>" in report.longreprtext)
    elif report.skipped:
        _tell(skipped=report.nodeid, why=str(report.longrepr[2] if report.longrepr else ""))  # type: ignore[index]
    elif report.when == "call":
        _tell(passed=report.nodeid)
