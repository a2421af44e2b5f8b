"""What may be true of a job, from what was done to it: the model the service is held against."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.planned_jobs import Plan

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
_EVENTS: Final = (
    "SELECT jobs.id, job_events.attempt, job_events.kind, job_events.status, "
    "json_extract(job_events.data, '$.reason'), json_extract(job_events.data, '$.exit_code'), "
    "json_extract(job_events.data, '$.exit_signal') "
    "FROM job_events JOIN jobs ON jobs.seq = job_events.job_seq ORDER BY job_events.seq"
)
_STATUS_OF: Final = {"exited_zero": "completed", "cancel_requested": "cancelled"}

Told = tuple[str, int | None, int | None]
"""How an attempt ended: reason, exit code, signal."""


@dataclass
class ModelJob:
    """One acknowledged job: its plan, and what was done to each of its attempts."""

    id: str
    plan: Plan
    released: set[int] = field(default_factory=set)
    """Attempts whose hold was opened; without a hold every attempt runs to its end."""
    cancelled: set[int] = field(default_factory=set)
    """Attempts for which a cancel was acknowledged."""
    lost: set[int] = field(default_factory=set)
    """Attempts whose shim was killed between its start mark and its exit record."""
    short_of_space: set[int] = field(default_factory=set)
    """Attempts that may have wanted to write while the disk was full."""
    retried: set[int] = field(default_factory=set)
    """Attempts after which somebody asked for another."""
    seen: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The job as it was first shown ended, by attempt."""
    log_checked: set[int] = field(default_factory=set)

    def runs_freely(self, attempt: int) -> bool:
        """Whether it ends by itself."""
        return self.plan.hold is None or attempt in self.released

    def will_end(self, attempt: int) -> bool:
        return self.runs_freely(attempt) or attempt in self.cancelled or attempt in self.lost

    def may_end_as(self, attempt: int, told: Told) -> bool:
        """Whether the attempt may have ended so, given what was done to it."""
        if attempt in self.lost:
            return told == ("lost", None, None)
        own = ("exited_nonzero" if self.plan.exit_code else "exited_zero", self.plan.exit_code, None)
        possible: set[Told] = set()
        if self.runs_freely(attempt):
            possible.add(own)
        if attempt in self.cancelled:
            # Before its start; by SIGTERM, which the stand-in answers with 1 or, early, dies of; by SIGKILL.
            ends = [(None, None), (1, None), (None, 15), (None, 9)]
            if self.runs_freely(attempt):
                ends.append((self.plan.exit_code, None))
            possible.update(("cancel_requested", code, number) for code, number in ends)
        if attempt in self.short_of_space:
            possible |= {("launch_failed", None, None), ("exited_nonzero", 1, None)}
        return told in possible

    def may_follow_itself(self, attempt: int) -> bool:
        """Whether there may be another attempt after this one."""
        if attempt in self.retried:
            return True
        covered = (self.plan.retry_lost and attempt in self.lost) or (
            self.plan.exit_code > 0 and self.runs_freely(attempt)
        )
        return self.plan.max_retries > 0 and (covered or attempt in self.short_of_space)

    def hold_against(self, shown: dict[str, Any]) -> None:
        """Check what the API shows of the job. Raises AssertionError."""
        attempt, status = shown["attempt"], shown["status"]
        for earlier in range(max(self.seen, default=1), attempt):
            assert self.may_follow_itself(earlier), f"attempt {earlier} was given up: {self}"
        told = (shown["reason"], shown["exit_code"], shown["exit_signal"])
        if status not in TERMINAL:
            assert told == (None, None, None), f"an end before the end: {shown}"
            assert attempt not in self.seen, f"it had ended: {self.seen[attempt]}, now {shown}"
            return
        assert status == _STATUS_OF.get(told[0], "failed"), shown
        assert self.may_end_as(attempt, told), f"{told}, {shown['error_message']!r} cannot be: {self}"
        before = self.seen.setdefault(attempt, shown)
        assert shown == before, f"an ended job changed: {before}, now {shown}"

    def log_may_be(self, attempt: int, log: bytes) -> bool:
        """Whether an ended attempt may have left this log."""
        if attempt in self.short_of_space:
            return True  # what could not be written is missing
        reason = self.seen[attempt]["reason"] if attempt in self.seen else None
        if reason in ("exited_zero", "exited_nonzero") or (reason is None and self._undisturbed(attempt)):
            return self.plan.log_is_exact(log)
        return self.plan.log_is_exact(log) or self.plan.log_is_cut(log)

    def _undisturbed(self, attempt: int) -> bool:
        return attempt not in self.cancelled and attempt not in self.lost


def check_events(jobs: Sequence[ModelJob], database: Path) -> None:
    """Hold the store's own record against the model: each attempt has one end, of a kind it may have."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(_EVENTS).fetchall()
    for job in jobs:
        ends: Counter[int] = Counter()
        by_itself = 0
        for _, attempt, kind, status, *told in (row for row in rows if row[0] == job.id):
            if kind == "retried" and told[0] is not None:  # by itself: told how the one before ended
                assert job.may_end_as(attempt - 1, (told[0], told[1], told[2])), f"{told}: {job}"
                ends[attempt - 1] += 1
                by_itself += 1
            elif status in TERMINAL:
                ends[attempt] += 1
        attempts = max(job.seen)
        assert ends == dict.fromkeys(range(1, attempts + 1), 1), f"{ends}: {job}"
        assert by_itself <= job.plan.max_retries * (1 + len(job.retried)), job
