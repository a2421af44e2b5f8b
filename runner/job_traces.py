"""Tells the traces of jobs: follows their stored changes, and sends the spans of each attempt that ended.

What is to be sent is what the store has behind the last change that was sent, and that number is kept in a
file. So a receiver that is away costs no memory, and what was not sent before a kill -9 is sent after it.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from runner.errors import JobNotFound, StorageFull, StoreUnavailable
from runner.job_spans import ended_attempt, spans_of
from runner.spans import Sending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runner.job_store import JobStore
    from runner.jobs import JobEvent
    from runner.ports import EventBus
    from runner.spans import Span, SpanExporter

_log = structlog.get_logger(__name__)

FILE: Final = "traces.sent"
OFFERED_FOR_S: Final = 3600.0
"""How long spans are offered to a receiver that does not take them."""
_GATHER_S: Final = 1.0  # what ends meanwhile is sent together
_PAGE: Final = 100
_PAUSES_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
_CLOSES_WITHIN_S: Final = 0.5
_DIGITS: Final = 20


class JobTraces:
    """A thread of its own does all of it; nothing else waits for it."""

    def __init__(self, data_dir: Path, store: JobStore, bus: EventBus, exporter: SpanExporter) -> None:
        self._path = os.fspath(data_dir / FILE)
        self._store = store
        self._bus = bus
        self._exporter = exporter
        self._sent = 0
        self._written: int | None = None
        self._may_complain = True
        self._failures = 0  # in a row, whatever has failed
        self._is_away = False  # the receiver, and the log says so
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._closed = threading.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        """Before any job of this service can end. Raises StoreUnavailable."""
        newest, noted = self._store.newest_event(), self._noted()
        self._sent = newest if noted is None or noted > newest else noted
        self._unsubscribe = self._bus.subscribe(self._hear)
        self._note()
        self._news.set()  # there may be some from before
        self._thread.start()

    def close(self) -> None:
        """Send what there is to send, within half a second; the next start sends the rest."""
        if self._unsubscribe is None:
            return
        self._unsubscribe()
        self._stopping.set()
        self._news.set()
        self._thread.join(_CLOSES_WITHIN_S)
        self._closed.set()
        self._exporter.close()

    def _hear(self, event: JobEvent) -> None:
        if ended_attempt(event) is not None:
            self._news.set()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._closed.is_set():
            self._news.wait()
            is_last = self._stopping.wait(_GATHER_S)
            self._news.clear()
            if is_last and self._failures:
                return  # the next start tries again
            try:
                self._send_all()
            except Exception as error:  # noqa: BLE001 - the thread must live
                if self._closed.is_set():
                    return  # what it was at work with has been closed
                if isinstance(error, StoreUnavailable | StorageFull):
                    _log.warning("traces.store_unavailable", detail=str(error))
                else:
                    _log.exception("traces.failed")
                self._later()
            if is_last:
                return

    def _later(self) -> None:
        self._stopping.wait(_PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)])
        self._failures += 1
        self._news.set()

    def _send_all(self) -> None:
        while not self._closed.is_set():
            events = self._store.events(after_seq=self._sent, limit=_PAGE)
            if events and not self._send(events):
                self._later()
                return
            self._failures = 0
            if not events:
                return
            self._sent = events[-1].seq
            self._note()

    def _send(self, events: Sequence[JobEvent]) -> bool:
        """Whether these are done with: sent, or given up."""
        spans = self._spans(events)
        if not spans:
            return True
        match self._exporter.send(spans):
            case Sending.DONE:
                if self._is_away:
                    _log.info("traces.sent_again", failures=self._failures)
                self._is_away = False
                return True
            case Sending.REFUSED:
                _log.warning("traces.refused", spans=len(spans), detail=self._exporter.trouble)
                self._is_away = False
                return True
            case Sending.FAILED:
                if not self._is_away:
                    _log.warning("traces.not_sent", spans=len(spans), detail=self._exporter.trouble)
                self._is_away = True
                return False

    def _spans(self, events: Sequence[JobEvent]) -> list[Span]:
        oldest = time.time() - OFFERED_FOR_S
        ends = [event for event in events if ended_attempt(event) is not None]
        recent = [event for event in ends if _recorded_at(event).timestamp() >= oldest]
        jobs = self._store.briefs([event.job_id for event in recent]) if recent else {}
        spans: list[Span] = []
        for end in recent:
            job = jobs.get(end.job_id)
            if job is None or job.trace is None or not job.trace.is_told:
                continue
            try:
                spans.extend(spans_of(job, job.trace, self._events_of(end), end))
            except JobNotFound:
                continue
        return spans

    def _events_of(self, end: JobEvent) -> list[JobEvent]:
        events: list[JobEvent] = []
        while True:
            after = events[-1].seq if events else 0
            page = self._store.events(job_id=end.job_id, after_seq=after)
            events.extend(page)
            if not page or page[-1].seq >= end.seq:
                return events

    # ------------------------------------------------------------ the number

    def _noted(self) -> int | None:
        """The last change that was sent; None where nobody knows."""
        try:
            with open(self._path, "rb") as file:
                return int(file.read(_DIGITS))
        except (OSError, ValueError):
            return None

    def _note(self) -> None:
        """Not synced: what is sent twice has the same ids."""
        if self._sent == self._written:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, b"%0*d\n" % (_DIGITS, self._sent), 0)
            finally:
                os.close(fd)
        except OSError as error:
            if self._may_complain:
                _log.warning("traces.not_noted", error=error.strerror)
            self._may_complain = False
        else:
            self._written, self._may_complain = self._sent, True


def _recorded_at(end: JobEvent) -> datetime:
    text = end.data.get("recorded_at")
    return datetime.fromisoformat(text) if text is not None else end.at.astimezone(UTC)
