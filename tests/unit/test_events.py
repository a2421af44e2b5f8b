from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runner.events import EventBus
from runner.jobs import Change, JobEvent, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.ports import EventBus as EventBusPort

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def event(seq: int, job_id: str = "a") -> JobEvent:
    return JobEvent(
        seq=seq, job_id=job_id, kind=Change.PROGRESSED, status=JobStatus.RUNNING, attempt=1, at=WHEN
    )


@pytest.fixture
def bus() -> EventBusPort:
    return EventBus()


def test_a_subscriber_to_all_sees_every_event_in_order(bus: EventBusPort) -> None:
    seen: list[int] = []
    bus.subscribe(lambda e: seen.append(e.seq))
    bus.publish([event(1, "a"), event(2, "b")])
    bus.publish([event(3, "a")])
    assert seen == [1, 2, 3]


def test_a_subscriber_to_one_job_sees_nothing_of_the_others(bus: EventBusPort) -> None:
    seen: list[int] = []
    bus.subscribe(lambda e: seen.append(e.seq), job_id="b")
    bus.publish([event(1, "a"), event(2, "b"), event(3, "c"), event(4, "b")])
    assert seen == [2, 4]


def test_nothing_arrives_after_the_subscription_has_ended(bus: EventBusPort) -> None:
    seen: list[int] = []
    end = bus.subscribe(lambda e: seen.append(e.seq), job_id="a")
    bus.publish([event(1)])
    end()
    end()
    bus.publish([event(2)])
    assert seen == [1]


def test_a_callback_that_ends_another_subscription_is_obeyed_at_once(bus: EventBusPort) -> None:
    seen: list[str] = []
    ends: list[Callable[[], None]] = []
    bus.subscribe(lambda _: ends[0]())
    ends.append(bus.subscribe(lambda _: seen.append("late")))
    bus.publish([event(1)])
    assert seen == []


def test_a_subscriber_that_raises_is_dropped_and_logged_and_the_others_are_told(bus: EventBusPort) -> None:
    calls: list[str] = []
    seen: list[int] = []

    def broken(_: JobEvent) -> None:
        calls.append("called")
        raise RuntimeError("a subscriber's own mistake")

    bus.subscribe(broken)
    bus.subscribe(lambda e: seen.append(e.seq))
    with capture_logs() as logs:
        bus.publish([event(1), event(2)])
    assert calls == ["called"]
    assert seen == [1, 2]
    assert [(line["event"], line["job_id"]) for line in logs] == [("event_subscriber_dropped", "a")]


def test_what_a_callback_publishes_comes_after_what_was_published_before_it(bus: EventBusPort) -> None:
    seen: list[int] = []

    def republish(e: JobEvent) -> None:
        if e.seq == 1:
            bus.publish([event(3)])

    bus.subscribe(republish)
    bus.subscribe(lambda e: seen.append(e.seq))
    bus.publish([event(1), event(2)])
    assert seen == [1, 2, 3]


def test_subscribing_does_not_wait_for_a_slow_callback(bus: EventBusPort) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(_: JobEvent) -> None:
        entered.set()
        assert release.wait(10)

    bus.subscribe(slow)
    publisher = threading.Thread(target=bus.publish, args=([event(1)],))
    publisher.start()
    assert entered.wait(10)
    subscriber = threading.Thread(target=bus.subscribe, args=(lambda _: None,))
    subscriber.start()
    subscriber.join(10)
    waited = subscriber.is_alive()
    release.set()
    publisher.join(10)
    subscriber.join(10)
    assert not waited


def test_publish_returns_when_its_own_events_are_delivered_also_while_another_publisher_is_slow(
    bus: EventBusPort,
) -> None:
    entered, release = threading.Event(), threading.Event()
    delivered_by: dict[int, int] = {}
    seen_on_return: list[bool] = []

    def slow(e: JobEvent) -> None:
        delivered_by[e.seq] = threading.get_ident()
        if e.seq == 1:
            entered.set()
            assert release.wait(10)

    def publish_second() -> None:
        bus.publish([event(2)])
        seen_on_return.append(delivered_by.get(2) == threading.get_ident())

    bus.subscribe(slow)
    first = threading.Thread(target=bus.publish, args=([event(1)],))
    second = threading.Thread(target=publish_second)
    first.start()
    assert entered.wait(10)
    second.start()
    second.join(0.05)
    release.set()
    first.join(10)
    second.join(10)
    assert seen_on_return == [True]


def test_all_subscribers_see_one_order_whoever_publishes(bus: EventBusPort) -> None:
    first: list[int] = []
    second: list[int] = []
    bus.subscribe(lambda e: first.append(e.seq))
    bus.subscribe(lambda e: second.append(e.seq))
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            bus.subscribe(lambda _: None, job_id="a")()

    crowd = threading.Thread(target=come_and_go)

    def publish_all(n: int) -> None:
        for i in range(300):
            bus.publish([event(n * 1000 + i)])

    publishers = [threading.Thread(target=publish_all, args=(n,)) for n in range(4)]
    for thread in (crowd, *publishers):
        thread.start()
    for thread in publishers:
        thread.join(30)
    stop.set()
    crowd.join(30)
    assert first == second
    assert len(first) == 1200
    for n in range(4):
        own = [seq for seq in first if seq // 1000 == n]
        assert own == sorted(own)
