"""A background thread's share of the time, with a clock and an event that the test sets."""

from __future__ import annotations

import threading

import pytest

from runner.pace import Pace, Stopped


class Bell(threading.Event):
    """Notes how long it was waited for, and lets that much time pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.waited_s = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited_s += timeout
        self.now_s += timeout
        return self.is_set()


def test_work_is_followed_by_rest_in_the_proportion_asked_for() -> None:
    bell = Bell()
    pace = Pace(0.02, bell, clock_s=lambda: bell.now_s)
    for worked_s in (0.5, 0.01, 0.0001, 2.0):
        bell.now_s += worked_s
        pace.rest()
    assert bell.waited_s == pytest.approx(49 * 2.5101)


def test_small_pieces_of_work_add_up_and_what_was_no_work_does_not() -> None:
    bell = Bell()
    pace = Pace(0.25, bell, clock_s=lambda: bell.now_s)
    for _ in range(1000):
        bell.now_s += 7.0
        pace.begin()
        bell.now_s += 0.001
        pace.rest()
    assert bell.waited_s == pytest.approx(3.0, abs=0.02)  # some is still to be rested for


def test_it_ends_when_it_is_asked_to() -> None:
    bell = Bell()
    pace = Pace(0.5, bell)
    pace.rest()
    bell.set()
    with pytest.raises(Stopped):
        pace.rest()
