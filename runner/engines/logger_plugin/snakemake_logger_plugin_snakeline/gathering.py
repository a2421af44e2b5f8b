"""Records on their way to the plugin's thread, many at a time: to wake it costs more than to tell one."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from logging import LogRecord

_PATIENT_FROM = 100  # a run that has told less is short, and may not be held up at its end
_PAUSE_S = 0.1


class Gathering:
    """A filter for Snakemake's log queue, which keeps what is wanted and lets one record pass as a call.

    Records come from all threads, and are handed out in the order in which they came.
    """

    def __init__(self, is_wanted: Callable[[LogRecord], bool]) -> None:
        self._is_wanted = is_wanted
        self._records: deque[LogRecord] = deque()
        self._is_called = False
        self._handed_out = 0
        self._pause = threading.Event()  # never set
        self.is_on = False

    def filter(self, record: LogRecord) -> bool:
        """Whether the record has to pass. Never raises: the caller is the run itself."""
        try:
            return self._is_wanted(record) and self.take(record)
        except Exception:  # noqa: BLE001 - costs this record
            return False

    def take(self, record: LogRecord) -> bool:
        """Keep it; whether the plugin's thread has to be called, since nobody has done so."""
        vars(record)["is_gathered"] = True
        self._records.append(record)
        if self._is_called:
            return False
        self._is_called = True
        return True

    def hand_out(self) -> Iterator[LogRecord]:
        """What has come, after a short while in which more may come where there is much. On one thread."""
        if self._handed_out > _PATIENT_FROM:
            self._pause.wait(_PAUSE_S)
        return self.rest()

    def rest(self) -> Iterator[LogRecord]:
        """What has come, at once."""
        self._is_called = False  # before the look: what comes from now on calls again
        while self._records:
            self._handed_out += 1
            yield self._records.popleft()
