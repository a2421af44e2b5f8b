"""What is counted while the service runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from runner.histograms import LONG_S, SHORT_S, Histogram, Histograms, Tally, merged


def test_a_duration_is_in_every_bucket_that_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0))
    for duration in (0.0, 0.1, 0.11, 1.0, 1.01, 500.0):
        histogram.observe(duration)
    found = histogram.read()
    assert (found.bounds_s, found.at_most, found.count) == ((0.1, 1.0), (2, 4), 6)
    assert found.sum_s == pytest.approx(502.22)


def test_time_that_ran_backwards_counts_as_none() -> None:
    histogram = Histogram((0.1,))
    histogram.observe(-86_400.0)
    found = histogram.read()
    assert (found.at_most, found.count, found.sum_s) == ((1,), 1, 0.0)


def test_a_histogram_that_has_seen_nothing_has_all_its_buckets() -> None:
    found = Histogram().read()
    assert found.at_most == (0,) * len(SHORT_S)
    assert (found.count, found.sum_s) == (0, 0.0)


def test_what_many_threads_count_at_once_is_counted() -> None:
    tally: Tally[str] = Tally()
    histograms: Histograms[int] = Histograms(LONG_S)

    def count(number: int) -> None:
        for _ in range(2000):
            tally.add("all")
            tally.add(f"of {number}", 2)
            histograms.observe(number % 2, 1.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert tally.read() == {"all": 16_000, **{f"of {number}": 4000 for number in range(8)}}
    assert {key: found.count for key, found in histograms.read().items()} == {0: 8000, 1: 8000}
    assert sum(found.sum_s for found in histograms.read().values()) == 16_000.0


def test_two_distributions_make_one() -> None:
    one, other = Histogram((1.0, 5.0)), Histogram((1.0, 5.0))
    one.observe(0.5)
    other.observe(3.0)
    other.observe(9.0)
    both = merged(one.read(), other.read())
    assert (both.at_most, both.count, both.sum_s) == ((1, 2), 3, 12.5)


def test_what_was_read_does_not_change_any_more() -> None:
    tally: Tally[str] = Tally()
    tally.add("a")
    read = tally.read()
    tally.add("a")
    assert read == {"a": 1}
