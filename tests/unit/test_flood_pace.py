"""A flood is slowed to a rate; anything less never waits."""

from __future__ import annotations

import pytest

from runner.backends.flood_pace import BURST_S, BYTES_PER_S, FloodPace

PIECE = 2**16


def taken_s(pace: FloodPace, size: float, speed: float, *, begin: float = 1000.0) -> float:
    """How long it takes to take `size` bytes from a job that writes with `speed`."""
    now, left = begin, size
    while left > 0:
        now += PIECE / speed
        now += pace.pause_s(PIECE, now)
        left -= PIECE
    return now - begin


def test_a_job_that_writes_no_faster_than_the_rate_never_waits() -> None:
    size = 10 * BYTES_PER_S
    assert taken_s(FloodPace(), size, BYTES_PER_S) == pytest.approx(10, rel=0.001)


def test_a_burst_is_taken_at_full_speed() -> None:
    speed = 4 * BYTES_PER_S
    assert taken_s(FloodPace(), BURST_S * BYTES_PER_S, speed) == pytest.approx(BURST_S / 4, rel=0.001)


def test_what_floods_for_long_is_slowed_to_the_rate() -> None:
    took = taken_s(FloodPace(), 20 * BYTES_PER_S, 4 * BYTES_PER_S)
    assert took == pytest.approx(20 - BURST_S, abs=0.1)


def test_however_long_a_job_was_silent_its_credit_is_one_burst() -> None:
    pace = FloodPace()
    pace.pause_s(PIECE, 1000.0)
    took = taken_s(pace, 20 * BYTES_PER_S, 4 * BYTES_PER_S, begin=9000.0)
    assert took == pytest.approx(20 - BURST_S, abs=0.1)
