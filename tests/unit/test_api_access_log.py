"""Which answered requests leave a line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from api.access_log import AccessLog


def lines(
    log: AccessLog, *, times: int = 1, route: str = "/jobs", status: int = 200, first: float = 0.001
) -> Any:
    scope = {"client": ("10.0.0.1", 1), "method": "GET", "route": SimpleNamespace(path=route)}
    with structlog.testing.capture_logs() as told:
        for _ in range(times):
            log.answered(scope, status, first_byte_s=first if status else None, whole_s=first)
    return told


def test_by_default_every_request_leaves_one() -> None:
    (line,) = lines(AccessLog())
    assert line == {
        "event": "request",
        "log_level": "info",
        "client": "10.0.0.1",
        "method": "GET",
        "route": "/jobs",
        "status": 200,
        "ms": 1.0,
    }


def test_of_those_that_went_well_a_share_does_and_says_so() -> None:
    told = lines(AccessLog(0.25), times=2000)
    assert 350 < len(told) < 650  # eight standard deviations
    assert {line["share"] for line in told} == {0.25}
    assert lines(AccessLog(0), times=100) == []


@pytest.mark.parametrize("status", [0, 400, 401, 404, 422, 500, 503])
def test_one_that_failed_always_does(status: int) -> None:
    told = lines(AccessLog(0), times=20, status=status)
    assert len(told) == 20
    assert "share" not in told[0]
    assert {line["log_level"] for line in told} == {"warning" if status >= 500 else "info"}


def test_a_slow_one_always_does() -> None:
    assert len(lines(AccessLog(0, 0.5), times=20, first=0.5)) == 20
    assert lines(AccessLog(0, 0.5), times=20, first=0.49) == []


def test_those_of_load_balancers_are_for_debugging_unless_they_fail() -> None:
    assert [line["log_level"] for line in lines(AccessLog(0), route="/healthz")] == ["debug"]
    assert [line["log_level"] for line in lines(AccessLog(0), route="/readyz", status=503)] == ["warning"]
