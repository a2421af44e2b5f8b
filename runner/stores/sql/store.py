"""`SqlStore`: the job store in a database."""

from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from runner.access import ALL_TENANTS
from runner.errors import JobNotFound, StoreUnavailable
from runner.job_store import JobPage
from runner.jobs import JobStatus
from runner.stores.sql import before_upgrade, sqlite
from runner.stores.sql.access import SqlAccess
from runner.stores.sql.migrate import is_current, migrate, require_file
from runner.stores.sql.pages import Pages
from runner.stores.sql.queue_places import places_of
from runner.stores.sql.rows import brief_of, ended_job_of, event_of, job_of, micros, moment
from runner.stores.sql.schema import CHECKED_AT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from datetime import datetime

    from runner.access import AuditRecord, Quota
    from runner.job_store import EndedJob, IdempotencyKey, JobBrief, JobQuery, Submitted, Update
    from runner.jobs import Job, JobEvent
    from runner.measurements import StoreMeasurements

_CHECK_TIMEOUT_S: Final = 10.0
_LONG_AGO: Final = -(2**63)
_BRIEFS_AT_ONCE: Final = 512


class SqlStore(SqlAccess):
    """A `JobStore` and an `AccessStore` whose every acknowledged write survives a power cut.

    The jobs of a database belong to one process, the data directory's lock sees to that; others may
    look after keys and quotas meanwhile.
    """

    def __init__(
        self,
        file: sqlite.SqliteFile,
        *,
        on_commit: Callable[[Sequence[JobEvent]], None] | None = None,
        measurements: StoreMeasurements | None = None,
    ) -> None:
        super().__init__(file, on_commit=on_commit, measurements=measurements)
        self._pages = Pages(sqlite.dialect(), self._statements)
        self.copy_before_upgrade: str | None = None
        """Where the store is as it was, if opening it has upgraded it."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        on_commit: Callable[[Sequence[JobEvent]], None] | None = None,
        may_be_new: bool = True,
        may_upgrade: bool = True,
        measurements: StoreMeasurements | None = None,
    ) -> SqlStore:
        """Open the database at `url` (`sqlite:////absolute/path`), copied and upgraded as needed.

        A missing or empty one is made unless it may not be new, for its jobs have left files behind. Where
        it may not be upgraded, for a service uses it, it must have the tables that are needed here.
        Raises StoreUnavailable, with one line that says what to do, when that cannot be.
        """
        file = sqlite.SqliteFile(sqlite.path_of(url))
        copies: list[str] = []

        def copy(revision: str) -> None:
            copies.append(before_upgrade.copy_of(file.path, revision))

        try:
            if may_upgrade:
                migrate(file, may_be_new=may_be_new, before_upgrade=copy)
            elif not is_current(file, may_be_new=False):
                raise StoreUnavailable(
                    f"The store {file.path} is in use by an older Snakeline: restart it first."
                )
        except (sqlite3.Error, sa.exc.SQLAlchemyError, OSError) as error:
            raise sqlite.cannot_open(error, file.path) from error
        store = cls(file, on_commit=on_commit, measurements=measurements)
        store.copy_before_upgrade = next(iter(copies), None)
        return store

    @staticmethod
    def examine(url: str, *, may_be_new: bool = True) -> str:
        """What stands at `url`, in words for a person; nothing is made or changed.

        Raises StoreUnavailable when `open` would.
        """
        file = sqlite.SqliteFile(sqlite.path_of(url))
        require_file(file, may_be_new=may_be_new)
        if not os.path.exists(file.path):
            return f"{file.path} will be made at the first start"
        try:
            if is_current(file, may_be_new=may_be_new):
                return f"{file.path} can be read"
            before_upgrade.require_room(file.path)
            return f"{file.path} can be read; the next start copies it, then upgrades it"
        except (sqlite3.Error, OSError) as error:
            raise sqlite.cannot_open(error, file.path) from error

    # ------------------------------------------------------------ writes

    def add(
        self,
        job: Job,
        *,
        key: IdempotencyKey | None = None,
        max_pending: int | None = None,
        quota: Quota | None = None,
        used_bytes: int | None = None,
        audit: AuditRecord | None = None,
    ) -> Future[Submitted]:
        return self._writer.submit(
            lambda batch: batch.add(job, key, max_pending, quota=quota, used_bytes=used_bytes, audit=audit)
        )

    def update(self, updates: Sequence[Update]) -> Future[list[Job | None]]:
        return self._writer.submit(lambda batch: batch.update(updates))

    def delete(self, job: Job, *, audit: AuditRecord | None = None) -> Future[bool]:
        return self._writer.submit(lambda batch: batch.delete(job, audit))

    def forget_leftovers(self, job_ids: Sequence[str]) -> Future[None]:
        return self._writer.submit(lambda batch: batch.forget_leftovers(job_ids))

    # ------------------------------------------------------------ reads

    def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        values = {"id": job_id, "tenant": tenant}
        try:
            with self._reading() as connection:
                row = connection.execute(self._statements.by_id, values).fetchone()
        except UnicodeEncodeError:  # a lone surrogate: no text in the store has one
            row = None
        if row is None:
            raise JobNotFound(job_id)
        return job_of(row)

    def list(self, query: JobQuery) -> JobPage:
        try:
            with self._snapshot() as connection:
                return self._pages.page(connection, query)
        except UnicodeEncodeError:  # as in `get`
            return JobPage((), 0, total_is_exact=True, has_more=False)

    def pending(self, *, max_cores: int, limit: int, tenant: str | None = None) -> Sequence[Job]:
        with self._snapshot() as connection:
            tenants = self._waiting_tenants(connection) if tenant is None else (tenant,)
            first: list[tuple[int, int]] = []
            for each in tenants:
                for cores in self._pending_sizes(connection, each, max_cores):
                    values = {"tenant": each, "cores": cores, "n": limit}
                    rows = connection.execute(self._statements.pending_of_cores, values)
                    first.extend((-priority, seq) for priority, seq in rows)
            first.sort()
            return self._pages.jobs(connection, [seq for _, seq in first[:limit]])

    def _pending_sizes(self, connection: sqlite3.Connection, tenant: str, max_cores: int) -> Iterator[int]:
        """The sizes, in cores, of pending jobs that fit: those too big for now are never walked past."""
        cores = 0
        while True:
            values = {"tenant": tenant, "cores": cores}
            row = connection.execute(self._statements.next_cores, values).fetchone()
            if row is None or row[0] > max_cores:
                return
            cores = row[0]
            yield cores

    def queue_places(self, jobs: Sequence[Job]) -> Mapping[str, int]:
        asked: dict[str, dict[tuple[int, int], str]] = {}
        for job in jobs:
            if job.status is JobStatus.PENDING:
                asked.setdefault(job.tenant, {})[job.spec.priority, job.seq] = job.id
        places: dict[str, int] = {}
        if asked:
            with self._snapshot() as connection:
                for tenant, ids in asked.items():
                    found = places_of(connection, self._statements, tenant, ids)
                    places.update((ids[each], place) for each, place in found.items())
        return places

    def waiting_tenants(self) -> Mapping[str, int]:
        with self._reading() as connection:
            return self._waiting_tenants(connection)

    def _waiting_tenants(self, connection: sqlite3.Connection) -> dict[str, int]:
        return dict(connection.execute(self._statements.waiting_tenants).fetchall())

    def running(self) -> Sequence[Job]:
        with self._snapshot() as connection:
            seqs = [row[0] for row in connection.execute(self._statements.running)]
            return self._pages.jobs(connection, seqs)

    def has_workflow_version(self, version: str) -> bool:
        with self._reading() as connection:
            row = connection.execute(self._statements.of_workflow_version, {"version": version}).fetchone()
            return row is not None

    def counts(self, *, tenant: str | None = None) -> Mapping[JobStatus, int]:
        counts = dict.fromkeys(JobStatus, 0)
        values = {"tenant": ALL_TENANTS if tenant is None else tenant}
        with self._reading() as connection:
            for _, status, jobs in connection.execute(self._statements.counts, values):
                counts[JobStatus(status)] += jobs
        return counts

    def counts_by_workflow(self) -> Mapping[tuple[str, JobStatus], int]:
        with self._reading() as connection:
            rows = connection.execute(self._statements.counts, {"tenant": ALL_TENANTS})
            return {(workflow, JobStatus(status)): jobs for workflow, status, jobs in rows if jobs}

    def pending_since(self) -> datetime | None:
        oldest = None
        with self._reading() as connection:
            for updated_at, attempt in connection.execute(self._statements.pending_since):
                oldest = updated_at if oldest is None else min(oldest, updated_at)
                if attempt == 1:  # every later one has come later, and been put back later still
                    break
        return None if oldest is None else moment(oldest)

    def events(
        self, *, job_id: str | None = None, tenant: str | None = None, after_seq: int = 0, limit: int = 500
    ) -> Sequence[JobEvent]:
        if job_id is not None:
            statement = self._statements.events_of_job
        elif tenant is not None:
            statement = self._statements.events_of_tenant
        else:
            statement = self._statements.events
        values = {"job_id": job_id, "tenant": tenant, "after_seq": after_seq, "n": limit}
        try:
            with self._reading() as connection:
                return [event_of(row) for row in connection.execute(statement, values)]
        except UnicodeEncodeError:  # as in `get`
            return []

    def newest_event(self, *, tenant: str | None = None) -> int:
        with self._reading() as connection:
            if tenant is None:
                row = connection.execute(self._statements.newest_event).fetchone()
            else:
                row = connection.execute(
                    self._statements.newest_event_of_tenant, {"tenant": tenant}
                ).fetchone()
        return 0 if row is None or row[0] is None else int(row[0])

    def briefs(self, job_ids: Sequence[str]) -> Mapping[str, JobBrief]:
        found: dict[str, JobBrief] = {}
        left = list(dict.fromkeys(job_ids))
        with self._reading() as connection:
            while left:
                statement, values = self._statements.briefs(left[:_BRIEFS_AT_ONCE])
                del left[:_BRIEFS_AT_ONCE]
                for row in connection.execute(statement, values):
                    brief = brief_of(row)
                    found[brief.id] = brief
        return found

    def ended(self, *, after: EndedJob | None = None, limit: int = 500) -> Sequence[EndedJob]:
        at, seq = (_LONG_AGO, 0) if after is None else (micros(after.completed_at), after.seq)
        with self._reading() as connection:
            rows = connection.execute(self._statements.ended, {"at": at, "seq": seq, "n": limit})
            return [ended_job_of(row) for row in rows]

    def leftovers(self, *, after: str = "", limit: int = 500) -> Sequence[str]:
        with self._reading() as connection:
            rows = connection.execute(self._statements.leftovers, {"after": after, "n": limit})
            return [row[0] for row in rows]

    # ------------------------------------------------------------ condition

    def check(self) -> None:
        """Commit a row and read it back; all pages, once some could not be read.

        Raises StoreUnavailable or StorageFull.
        """
        if self._is_damaged:
            self._file.require_whole()
            self._is_damaged = False
        now = time.time_ns() // 1000
        written = self._writer.submit(lambda batch: batch.set_fact(CHECKED_AT, now))
        try:
            written.result(_CHECK_TIMEOUT_S)
        except FutureTimeout:
            written.cancel()
            raise StoreUnavailable(
                f"The store {self._file.path} has not answered for {_CHECK_TIMEOUT_S:g} s."
            ) from None
        with self._reading() as connection:
            if connection.execute(self._statements.fact, {"name": CHECKED_AT}).fetchone() is None:
                raise StoreUnavailable(f"The store {self._file.path} has forgotten what was written.")
