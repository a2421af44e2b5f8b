"""When the client tries again, and after which pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from snakeline.client.errors import Problem, Unreachable, problem_of
from snakeline.client.retries import Absence, Tries


def refusal(status: int, retry_after_s: float | None = None, kind: str = "queue-full") -> Problem:
    return Problem(status, {"type": kind}, retry_after_s)


def test_the_pauses_grow_to_a_bound_while_there_is_time() -> None:
    tries = Tries(1000)
    pauses = [tries.after_refusal(refusal(503)) or 0 for _ in range(9)]
    for pause, least in zip(pauses, [0.25, 0.5, 1, 2, 4, 8, 8, 8, 8], strict=True):
        assert least <= pause <= least * 1.25


def test_the_services_own_word_is_kept_and_never_shortened() -> None:
    assert 7 <= (Tries(60).after_refusal(refusal(429, 7)) or 0) <= 8.75
    assert Tries(5).after_refusal(refusal(429, 7)) is None
    assert Tries(0).after_refusal(refusal(503)) is None


def test_the_pauses_grow_also_where_the_service_says_at_once_each_time() -> None:
    tries, pauses = Tries(60), []
    while (pause_s := tries.after_refusal(refusal(503, 0))) is not None and pause_s < 2:
        pauses.append(pause_s)
    assert pauses == sorted(pauses)
    assert (pauses[0] < 0.02, 5 <= len(pauses) <= 9, tries.next_number) == (True, True, len(pauses) + 2)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 502, 507])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    assert Tries(60).after_refusal(refusal(status, 1)) is None


def test_a_refused_key_is_not_tried_again() -> None:
    assert Tries(60).after_refusal(refusal(429, 1, "too-many-failures")) is None


def test_a_break_is_borne_for_a_shorter_time() -> None:
    tries, count = Tries(1000), 0
    tries._began -= 14
    while tries.after_break() is not None:
        count += 1
    assert 2 <= count <= 3


def test_an_absence_that_lasts_raises_the_break_and_is_forgotten_once_over() -> None:
    absence, broken = Absence(60), Unreachable("broken")
    absence.pause(broken)
    assert absence._tries is not None
    absence._tries._began -= 16
    with pytest.raises(Unreachable, match="broken"):
        absence.pause(broken)
    absence.over()
    assert absence.pause(broken) < 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("3", 3, 3),
        ("-3", 0, 0),
        ("in an hour", 3500, 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str, least: float, most: float) -> None:
    if header == "in an hour":
        header = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    answer = httpx2.Response(429, headers={"Retry-After": header}, json={"type": "queue-full"})
    assert least <= (problem_of(answer).retry_after_s or 0) <= most


@pytest.mark.parametrize("header", ["soon", "", "1 day"])
def test_a_retry_after_that_is_neither_is_none(header: str) -> None:
    answer = httpx2.Response(503, headers={"Retry-After": header, "X-Request-ID": "r1"}, text="<html>busy")
    problem = problem_of(answer)
    assert (problem.retry_after_s, problem.request_id, problem.detail) == (None, "r1", "<html>busy")
