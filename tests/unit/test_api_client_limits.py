"""What one client may take of the service, and what gives way when it takes more."""

from __future__ import annotations

import resource
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from api.client_limits import (
    WHY_REFUSED,
    Connections,
    OpenStreams,
    client_group,
    connections_within_descriptors,
)
from api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator


class Line:
    """A connection that can be closed unless it is still sending."""

    def __init__(self, *, sending: bool = False) -> None:
        self.closed = False
        self.sending = sending

    def give_way(self) -> bool:
        self.closed = not self.sending
        return self.closed


def lines(count: int) -> Iterator[Line]:
    return (Line() for _ in range(count))


def refusal(connections: Connections, host: str, line: Line | None = None) -> tuple[int, str] | None:
    problem = connections.admit(line or Line(), host)
    return None if problem is None else (problem.kind.status, problem.kind.slug)


def test_the_oldest_connection_without_a_request_gives_way() -> None:
    connections = Connections(100, 3)
    first, second, third = lines(3)
    for line in (first, second, third):
        assert connections.admit(line, "192.0.2.1") is None
    connections.works(first)
    assert refusal(connections, "192.0.2.1") is None
    assert [line.closed for line in (first, second, third)] == [False, True, False]
    assert len(connections) == 3


def test_a_client_whose_connections_are_all_busy_is_refused_and_no_other() -> None:
    connections = Connections(100, 2)
    busy = list(lines(2))
    for line in busy:
        connections.admit(line, "192.0.2.1")
        connections.works(line)
    assert refusal(connections, "192.0.2.1") == (429, "too-many-connections")
    assert refusal(connections, "192.0.2.2") is None
    connections.leave(busy[0])
    assert refusal(connections, "192.0.2.1") is None
    assert connections.refused == {"too-many-connections": 1}


def test_all_clients_together_have_a_limit_too() -> None:
    connections = Connections(2, 100)
    busy, idle = lines(2)
    connections.admit(busy, "192.0.2.1")
    connections.works(busy)
    connections.admit(idle, "192.0.2.2")
    assert refusal(connections, "192.0.2.3") is None
    assert (busy.closed, idle.closed) == (False, True)
    newest = Line()
    connections.admit(newest, "192.0.2.4")
    connections.works(newest)
    assert refusal(connections, "192.0.2.5") == (503, "too-many-clients")
    assert len(connections) == 2


def test_a_connection_that_still_sends_does_not_give_way() -> None:
    connections = Connections(100, 2)
    sending, idle = Line(sending=True), Line()
    connections.admit(sending, "192.0.2.1")
    connections.admit(idle, "192.0.2.1")
    assert refusal(connections, "192.0.2.1") is None
    assert idle.closed


def test_one_that_has_had_its_answer_waits_behind_those_before_it() -> None:
    connections = Connections(100, 2)
    first, second = lines(2)
    connections.admit(first, "192.0.2.1")
    connections.admit(second, "192.0.2.1")
    connections.works(first)
    connections.waits(first)
    refusal(connections, "192.0.2.1")
    assert (first.closed, second.closed) == (False, True)


def test_only_so_many_refused_ones_are_told() -> None:
    connections = Connections(100, 1)
    busy = Line()
    connections.admit(busy, "192.0.2.1")
    connections.works(busy)
    told = list(lines(100))
    for line in told:
        assert connections.admit(line, "192.0.2.1") is not None
    assert sum(line.closed for line in told) == 100 - 64
    connections.leave(told[0])
    after = Line()
    connections.admit(after, "192.0.2.1")
    assert not after.closed


def test_proxies_are_counted_in_all_alone() -> None:
    connections = Connections(100, 1, exempt=lambda host: host == "10.0.0.1")
    for line in lines(50):
        connections.admit(line, "10.0.0.1")
        connections.works(line)
    assert refusal(connections, "10.0.0.1") is None
    assert len(connections) == 51


def test_nothing_is_kept_of_who_has_gone() -> None:
    connections = Connections(10, 2)
    for number in range(100):
        line = Line()
        connections.admit(line, f"192.0.2.{number}")
        connections.works(line)
        connections.leave(line)
        connections.leave(line)
        connections.waits(line)
    assert (len(connections), connections._clients, connections._waiting) == (0, {}, {})


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a:b", "a:b"),
        ("", ""),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(host: str, group: str) -> None:
    assert client_group(host) == group


def test_streams_are_counted_by_client_as_long_as_they_are_open() -> None:
    refused: Counter[str] = Counter()
    streams = OpenStreams(2, refused)
    here, there = {"client": ("192.0.2.1", 1)}, {"client": ("192.0.2.2", 1)}
    with streams.open(here), streams.open(here):
        with pytest.raises(Problem, match="SNAKELINE_MAX_STREAMS_PER_CLIENT") as caught, streams.open(here):
            raise AssertionError
        assert (caught.value.kind.status, caught.value.headers) == (429, {"Retry-After": "5"})
        with streams.open(there):
            assert len(streams) == 3
    with streams.open(here):
        assert len(streams) == 1
    assert (len(streams), refused) == (0, {"too-many-streams": 1})
    assert set(refused) <= set(WHY_REFUSED)


def test_jobs_always_find_a_descriptor() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert connections_within_descriptors(16, 2) == 16
    assert connections_within_descriptors(limit, 2) == max(16, limit - 256 - 4)
    assert connections_within_descriptors(limit, limit) == 16
