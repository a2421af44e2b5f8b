"""Jobs whose files are in somebody's hands just now: nothing else may run in them or remove them."""

from __future__ import annotations

import threading


class HeldJobs:
    """Which jobs are held, by id. Thread-safe; each by one holder at a time.

    Only for jobs at rest: a running attempt is kept apart from others by its lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[str] = set()

    def hold(self, job_id: str) -> bool:
        """Hold it until `release`; false when somebody else does."""
        with self._lock:
            if job_id in self._held:
                return False
            self._held.add(job_id)
            return True

    def release(self, job_id: str) -> None:
        with self._lock:
            self._held.discard(job_id)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._held
