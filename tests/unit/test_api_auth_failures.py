"""The limit on refused credentials."""

from __future__ import annotations

import pytest

from api.auth_failures import FailureLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> FailureLimit:
    return FailureLimit(per_minute=10, most_clients=100, clock=clock)


def test_ten_a_minute_are_within_it_and_the_next_has_to_wait(limit: FailureLimit, clock: Clock) -> None:
    assert [limit.failed("192.0.2.1") for _ in range(10)] == [0] * 10
    assert limit.failed("192.0.2.1") == 6
    clock.now += 6
    assert limit.failed("192.0.2.1") == 6
    clock.now += 12
    assert limit.failed("192.0.2.1") == 0


def test_it_ends_within_a_minute_however_many_failed(limit: FailureLimit, clock: Clock) -> None:
    for _ in range(10_000):
        limit.failed("192.0.2.1")
    clock.now += 60
    assert limit.failed("192.0.2.1") == 0


def test_one_client_does_not_count_for_another(limit: FailureLimit) -> None:
    for _ in range(20):
        limit.failed("192.0.2.1")
    assert limit.failed("192.0.2.2") == 0
    assert limit.failed(None) == 0


def test_the_addresses_of_one_ipv6_client_count_together(limit: FailureLimit) -> None:
    assert [limit.failed(f"2001:db8:0:1::{n:x}") for n in range(11)] == [0] * 10 + [6]
    assert limit.failed("2001:db8:0:2::1") == 0
    assert limit.failed("fe80::1%eth0") == 0


def test_however_many_clients_fail_its_table_is_bounded(limit: FailureLimit) -> None:
    for _ in range(11):
        limit.failed("192.0.2.1")
    for n in range(99):
        limit.failed(f"198.51.100.{n}")
    assert limit.failed("192.0.2.1") > 0  # not yet forgotten, and now the newest
    for n in range(1000):
        limit.failed(f"10.0.{n // 250}.{n % 250}")
    assert len(limit) == 100
