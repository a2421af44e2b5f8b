"""The in-process event bus. A hint that something changed, never the truth: that is in the store."""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.jobs import JobEvent

_log = structlog.get_logger(__name__)


class EventBus:
    """Thread-safe. Every subscriber sees the events in the order in which they were published.

    One publisher delivers at a time and on its own thread, so a callback must be quick and must not wait
    for another publisher. What a callback publishes itself is delivered after the events before it.
    """

    def __init__(self) -> None:
        self._delivery = threading.RLock()  # held while delivering: this is what keeps the order
        self._undelivered: deque[JobEvent] = deque()
        self._delivering = False
        self._table = (
            threading.Lock()
        )  # held for a moment only, so that subscribing never waits for a callback
        self._numbers = count()
        # Subscribers by job id; None is every job.
        self._subscribers: dict[str | None, dict[int, Callable[[JobEvent], None]]] = {}

    def publish(self, events: Sequence[JobEvent]) -> None:
        """Call every subscriber for each event, in order; one that raises is dropped and logged."""
        with self._delivery:
            self._undelivered.extend(events)
            if self._delivering:  # called by a callback: the loop below is already at work on this thread
                return
            self._delivering = True
            try:
                while self._undelivered:
                    self._deliver(self._undelivered.popleft())
            finally:
                self._delivering = False

    def subscribe(
        self, callback: Callable[[JobEvent], None], *, job_id: str | None = None
    ) -> Callable[[], None]:
        """Returns the function that ends the subscription; safe to repeat and from any thread.

        Callbacks run on the publisher's thread. One call may still be under way on it when the
        subscription ends on another.
        """
        with self._table:
            number = next(self._numbers)
            self._subscribers.setdefault(job_id, {})[number] = callback

        return lambda: self._drop(job_id, number)

    def _deliver(self, event: JobEvent) -> None:
        for key in (None, event.job_id):
            with self._table:
                callbacks = list(self._subscribers.get(key, {}).items())
            for number, callback in callbacks:
                if number not in self._subscribers.get(key, {}):
                    continue  # ended by a callback before it
                try:
                    callback(event)
                except Exception:  # noqa: BLE001 - whatever a subscriber does, the others are told
                    _log.exception("event_subscriber_dropped", job_id=event.job_id, kind=event.kind.value)
                    self._drop(key, number)

    def _drop(self, key: str | None, number: int) -> None:
        with self._table:
            subscribers = self._subscribers.get(key, {})
            subscribers.pop(number, None)
            if not subscribers:
                self._subscribers.pop(key, None)
