"""Trouble that comes each second fills no log, and whoever reads that hears of its end."""

from __future__ import annotations

import pytest

from runner.recurring_trouble import RecurringTrouble


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_told_at_once_and_then_once_in_its_time_with_how_often_it_came(clock: Clock) -> None:
    trouble = RecurringTrouble(60.0, clock)
    told = []
    for second in range(150):
        clock.now = float(second)
        if times := trouble.came():
            told.append((second, times))
    assert told == [(0, 1), (60, 60), (120, 60)]


def test_its_end_is_told_once(clock: Clock) -> None:
    trouble = RecurringTrouble(60.0, clock)
    assert not trouble.is_over()
    assert trouble.came() == 1
    assert [trouble.is_over(), trouble.is_over()] == [True, False]


def test_trouble_that_comes_and_goes_is_told_no_more_often(clock: Clock) -> None:
    trouble = RecurringTrouble(60.0, clock)
    lines = []
    for second in range(120):
        clock.now = float(second)
        if times := trouble.came():
            lines.append((second, "came", times))
        if trouble.is_over():
            lines.append((second, "over", 0))
    assert lines == [(0, "came", 1), (0, "over", 0), (60, "came", 60), (60, "over", 0)]


def test_another_kind_is_told_at_once(clock: Clock) -> None:
    trouble = RecurringTrouble(60.0, clock)
    assert [trouble.came("full"), trouble.came("locked"), trouble.came("full")] == [1, 1, 0]
    clock.now = 60.0
    assert [trouble.came("full"), trouble.came("locked")] == [2, 1]


def test_kinds_without_end_take_no_memory(clock: Clock) -> None:
    trouble = RecurringTrouble(60.0, clock)
    assert all(trouble.came(str(number)) for number in range(1000))
    assert len(trouble._quiet_until) == len(trouble._times) <= 32
