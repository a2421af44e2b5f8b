"""One transaction: what the writer does to the database for a group of operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.access import ALL_TENANTS, Quota
from runner.errors import IdempotencyMismatch, QueueFull
from runner.job_store import Admission, Submitted
from runner.jobs import Change, Job, JobEvent, JobStatus
from runner.quotas import effective, require_room
from runner.stores.sql.access_rows import audit_values
from runner.stores.sql.rows import changing_values, data_text, job_of, job_values, micros, spec_text
from runner.stores.sql.schema import CREATED_LAG

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from runner.access import AuditRecord
    from runner.job_store import IdempotencyKey, Update
    from runner.stores.sql.statements import Statements


class Batch:
    """The operations of one transaction, each seeing what the ones before it did.

    An error of the domain is raised before anything is written, so the rest of the batch stands;
    after any other error the transaction must be rolled back. `finish` writes what is summed up over
    the whole batch, and `events` may be published once it is committed.
    """

    def __init__(self, cursor: sqlite3.Cursor, statements: Statements) -> None:
        self._cursor = cursor
        self.execute = cursor.execute
        self._statements = statements
        self._moved: Counter[tuple[str, str, str]] = Counter()  # by tenant, workflow and status
        self._pending_before: dict[str, int] = {}  # by tenant
        self._pending_change: Counter[str] = Counter()
        self._quotas: dict[str, Quota | None] = {}
        self._ceiling: int | None = None
        self._lag = 0
        self._numbers: dict[str, int] | None = None
        # Rows to be written together, in the order of their tables' columns.
        self._jobs: list[tuple[Any, ...]] = []
        self._specs: list[tuple[Any, ...]] = []
        self._labels: list[tuple[Any, ...]] = []
        self._names: list[tuple[Any, ...]] = []
        self._event_rows: list[tuple[Any, ...]] = []
        self._told_rows: dict[int, tuple[Any, ...]] = {}  # those of progress, by their jobs' seq
        self._audit_rows: list[tuple[Any, ...]] = []
        self._keyed: dict[tuple[str, str], tuple[str, Job]] = {}  # added here: by tenant and key
        self.events: list[JobEvent] = []

    def add(
        self,
        job: Job,
        key: IdempotencyKey | None,
        max_pending: int | None,
        *,
        quota: Quota | None = None,
        used_bytes: int | None = None,
        audit: AuditRecord | None = None,
    ) -> Submitted:
        if key is not None and (known := self._job_of(job.tenant, key)) is not None:
            return Submitted(known, replayed=True)
        self._admit(job, Admission(max_pending, quota, used_bytes))
        added = self._insert(job, key)
        if key is not None:
            self._keyed[job.tenant, key.key] = (key.fingerprint, added)
        self.record(audit)
        return Submitted(added, replayed=False)

    def _admit(self, job: Job, limits: Admission) -> None:
        if limits.quota is not None:
            own = effective(self._quota_of(job.tenant), limits.quota)
            require_room(job, own, pending=lambda: self._pending(job.tenant), used_bytes=limits.used_bytes)
        if limits.max_pending is not None and self._pending(ALL_TENANTS) >= limits.max_pending:
            raise QueueFull(limits.max_pending)

    def _quota_of(self, tenant: str) -> Quota | None:
        if tenant not in self._quotas:
            row = self._cursor.execute(self._statements.quota, {"name": tenant}).fetchone()
            self._quotas[tenant] = None if row is None else Quota(*row)
        return self._quotas[tenant]

    def forget_quotas(self) -> None:
        """One was changed in this transaction."""
        self._quotas.clear()

    def record(self, audit: AuditRecord | None) -> None:
        if audit is not None:
            self._audit_rows.append(audit_values(audit))

    def _job_of(self, tenant: str, key: IdempotencyKey) -> Job | None:
        """The job this key of the tenant has made. Raises IdempotencyMismatch."""
        fingerprint, job = self._keyed.get((tenant, key.key), (None, None))
        if job is None:
            values = {"tenant": tenant, "key": key.key}
            row = self._cursor.execute(self._statements.by_key, values).fetchone()
            if row is None:
                return None
            fingerprint, job = row[-1], job_of(row[:-1])
        if fingerprint != key.fingerprint:
            raise IdempotencyMismatch
        return job

    def _insert(self, job: Job, key: IdempotencyKey | None) -> Job:
        spec = job.spec
        values = job_values(job, key, self._ceiling_with(micros(job.created_at)))
        seq = values["seq"] = self._next_number("jobs")
        self._jobs.append(tuple([values[name] for name in self._statements.job_columns]))
        self._specs.append((seq, spec_text(spec)))
        self._labels.extend((label, value, seq, job.tenant) for label, value in spec.labels.items())
        if values["name_folded"] is not None:
            self._names.append((seq, values["name_folded"]))
        self._count(job, job.status, 1)
        self._event(seq, job, Change.SUBMITTED, job.created_at, {})
        return replace(job, seq=seq)

    def _next_number(self, table: str) -> int:
        if self._numbers is None:
            self._numbers = dict(self._cursor.execute(self._statements.last_numbers).fetchall())
        number = self._numbers[table] = self._numbers.get(table, 0) + 1
        return number

    def _write_rows(self) -> None:
        """Write what waits: jobs first, the others name them."""
        statements, cursor = self._statements, self._cursor
        statements.add_jobs.run(cursor, self._jobs)
        statements.add_specs.run(cursor, self._specs)
        statements.add_labels.run(cursor, self._labels)
        statements.add_names.run(cursor, self._names)
        statements.add_events.run(cursor, self._event_rows)
        self._told_rows.clear()
        statements.add_audit.run(cursor, self._audit_rows)

    def update(self, updates: Sequence[Update]) -> list[Job | None]:
        if self._jobs:
            self._write_rows()  # one of them may be meant
        for each in updates:
            if each.admission is not None:
                self._admit(each.after, each.admission)
        return [self._update(update) for update in updates]

    def _update(self, update: Update) -> Job | None:
        before, after = update.before, update.after
        moved = before.status is not after.status
        values = {f"new_{name}": value for name, value in changing_values(after).items()}
        if not moved:
            del values["new_status"]
        values["before_id"] = before.id
        values["before_version"] = before.version
        statement = self._statements.set_moved if moved else self._statements.set_unmoved
        row = self._cursor.execute(statement, values).fetchone()
        if row is None:
            return None
        seq = row[0]
        if moved:
            self._count(before, before.status, -1)
            self._count(before, after.status, 1)
        self.record(update.audit)
        if before.status is JobStatus.RUNNING:
            self._supersede(seq)
        self._event(seq, after, update.kind, after.updated_at, update.data)
        return after if after.seq == seq else replace(after, seq=seq)

    def _supersede(self, seq: int) -> None:
        """The job's newest event goes if it told progress: a run of a day would leave a million of them."""
        if (told := self._told_rows.pop(seq, None)) is not None:
            self._event_rows.remove(told)
        else:
            self._cursor.execute(self._statements.delete_told, {"seq": seq})

    def delete(self, job: Job, audit: AuditRecord | None) -> bool:
        execute, statements = self._cursor.execute, self._statements
        self._write_rows()
        self._keyed.clear()  # from here on the tables know better
        row = execute(statements.by_id, {"id": job.id, "tenant": None}).fetchone()
        if row is None:
            return False
        stored = job_of(row)
        if stored.version != job.version:
            return False
        seq = stored.seq
        for label, value in stored.spec.labels.items():
            execute(statements.delete_label, {"key": label, "value": value, "seq": seq})
        if stored.spec.name is not None:
            execute(statements.delete_name, {"seq": seq})
        execute(statements.delete_job, {"seq": seq})
        execute(statements.add_leftover, {"id": stored.id})
        self._count(stored, stored.status, -1)
        self.record(audit)
        return True

    def forget_leftovers(self, job_ids: Sequence[str]) -> None:
        self._cursor.executemany(self._statements.delete_leftover, [{"id": job_id} for job_id in job_ids])

    def set_fact(self, name: str, value: int) -> None:
        self._cursor.execute(self._statements.set_fact, {"name": name, "value": value})

    def finish(self) -> None:
        self._write_rows()
        for (_, workflow, status), jobs in list(self._moved.items()):
            self._moved[ALL_TENANTS, workflow, status] += jobs
        changes = [
            {"tenant": tenant, "workflow": workflow, "status": status, "jobs": jobs}
            for (tenant, workflow, status), jobs in self._moved.items()
            if jobs
        ]
        if changes:
            self._cursor.executemany(self._statements.add_count, changes)
        if self._lag:
            row = self._cursor.execute(self._statements.fact, {"name": CREATED_LAG}).fetchone()
            if row is None or row[0] < self._lag:
                self.set_fact(CREATED_LAG, self._lag)

    def _pending(self, tenant: str) -> int:
        if tenant not in self._pending_before:
            row = self._cursor.execute(self._statements.pending_count, {"tenant": tenant}).fetchone()
            self._pending_before[tenant] = int(row[0])
        # What this batch did itself is not in the table before `finish`.
        return self._pending_before[tenant] + self._pending_change[tenant]

    def _ceiling_with(self, created_at: int) -> int:
        if self._ceiling is None:
            row = self._cursor.execute(self._statements.last_ceiling).fetchone()
            self._ceiling = created_at if row is None else int(row[0])
        self._ceiling = max(self._ceiling, created_at)
        self._lag = max(self._lag, self._ceiling - created_at)
        return self._ceiling

    def _count(self, job: Job, status: JobStatus, change: int) -> None:
        self._moved[job.tenant, job.spec.workflow, status.value] += change
        if status is JobStatus.PENDING:
            self._pending_change[job.tenant] += change
            self._pending_change[ALL_TENANTS] += change

    def _event(self, seq: int, job: Job, kind: Change, at: datetime, data: Mapping[str, Any]) -> None:
        number, status, attempt = self._next_number("job_events"), job.status, job.attempt
        row = (number, seq, kind.value, status.value, attempt, micros(at), data_text(data), job.tenant)
        self._event_rows.append(row)
        if kind is Change.PROGRESSED:
            self._told_rows[seq] = row
        self.events.append(JobEvent(number, job.id, kind, status, attempt, at, data, job.tenant))
