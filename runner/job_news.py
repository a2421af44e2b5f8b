"""What happens to jobs, as it was stored: for people who follow it, from any point on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.access import OPERATOR

if TYPE_CHECKING:
    from runner.access import Caller
    from runner.job_store import JobBrief, JobStore
    from runner.jobs import JobEvent


@dataclass(frozen=True, slots=True)
class NewsItem:
    """A change of a job, and the job as it is now: it may have changed since."""

    event: JobEvent
    job: JobBrief


@dataclass(frozen=True, slots=True)
class NewsPage:
    """`read_to` is the number to go on behind; everything up to it has been looked at."""

    items: tuple[NewsItem, ...]
    read_to: int
    has_more: bool


class JobNews:
    """Thread-safe; every method waits for the disk and may raise StoreUnavailable."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def page(
        self, after_seq: int, *, job_id: str | None = None, limit: int = 200, caller: Caller = OPERATOR
    ) -> NewsPage:
        """The changes behind `after_seq`, oldest first. Those of deleted jobs have gone with them."""
        events = self._store.events(
            job_id=job_id, tenant=caller.visible_tenant, after_seq=after_seq, limit=limit
        )
        jobs = self._store.briefs([event.job_id for event in events])
        # One that was deleted since is left out, as the others of its kind.
        items = tuple(NewsItem(event, jobs[event.job_id]) for event in events if event.job_id in jobs)
        return NewsPage(items, events[-1].seq if events else after_seq, has_more=len(events) == limit)

    def newest(self, *, caller: Caller = OPERATOR) -> int:
        """The number of the newest change that the caller may see, or 0."""
        return self._store.newest_event(tenant=caller.visible_tenant)
