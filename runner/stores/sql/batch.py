"""One transaction: what the writer does to the database for a group of operations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.errors import IdempotencyMismatch, QueueFull
from runner.jobs import Change, Job, JobEvent, JobStatus
from runner.ports import Submitted
from runner.stores.sql.rows import changing_values, data_text, job_of, job_values, micros, spec_text
from runner.stores.sql.schema import CREATED_LAG

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from runner.ports import IdempotencyKey, Update
    from runner.stores.sql.statements import Statements


class Batch:
    """The operations of one transaction, each seeing what the ones before it did.

    An error of the domain is raised before anything is written, so the rest of the batch stands;
    after any other error the transaction must be rolled back. `finish` writes what is summed up over
    the whole batch, and `events` may be published once it is committed.
    """

    def __init__(self, cursor: sqlite3.Cursor, statements: Statements) -> None:
        self._cursor = cursor
        self._statements = statements
        self._moved: Counter[tuple[str, str]] = Counter()
        self._pending_before: int | None = None
        self._pending_change = 0
        self._ceiling: int | None = None
        self._lag = 0
        self.events: list[JobEvent] = []

    def add(self, job: Job, key: IdempotencyKey | None, max_pending: int | None) -> Submitted:
        if key is not None:
            row = self._cursor.execute(self._statements.by_key, {"key": key.key}).fetchone()
            if row is not None:
                if row[-1] != key.fingerprint:
                    raise IdempotencyMismatch
                return Submitted(job_of(row[:-1]), replayed=True)
        if max_pending is not None and self._pending() >= max_pending:
            raise QueueFull(max_pending)
        return Submitted(self._insert(job, key), replayed=False)

    def _insert(self, job: Job, key: IdempotencyKey | None) -> Job:
        execute, statements, spec = self._cursor.execute, self._statements, job.spec
        values = job_values(job, key, self._ceiling_with(micros(job.created_at)))
        execute(statements.add_job, values)
        seq = self._cursor.lastrowid
        assert seq is not None  # an insert has just succeeded
        execute(statements.add_spec, {"seq": seq, "spec": spec_text(spec)})
        for label, value in spec.labels.items():
            execute(statements.add_label, {"key": label, "value": value, "seq": seq})
        if values["name_folded"] is not None:
            execute(statements.add_name, {"seq": seq, "name": values["name_folded"]})
        self._count(spec.workflow, job.status, 1)
        self._event(seq, job, Change.SUBMITTED, job.created_at, {})
        return replace(job, seq=seq)

    def update(self, updates: Sequence[Update]) -> list[Job | None]:
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
            self._count(before.spec.workflow, before.status, -1)
            self._count(before.spec.workflow, after.status, 1)
        self._event(seq, after, update.kind, after.updated_at, update.data)
        return after if after.seq == seq else replace(after, seq=seq)

    def delete(self, job: Job) -> bool:
        execute, statements = self._cursor.execute, self._statements
        row = execute(statements.by_id, {"id": job.id}).fetchone()
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
        self._count(stored.spec.workflow, stored.status, -1)
        return True

    def set_fact(self, name: str, value: int) -> None:
        self._cursor.execute(self._statements.set_fact, {"name": name, "value": value})

    def finish(self) -> None:
        changes = [
            {"workflow": workflow, "status": status, "jobs": jobs}
            for (workflow, status), jobs in self._moved.items()
            if jobs
        ]
        if changes:
            self._cursor.executemany(self._statements.add_count, changes)
        if self._lag:
            row = self._cursor.execute(self._statements.fact, {"name": CREATED_LAG}).fetchone()
            if row is None or row[0] < self._lag:
                self.set_fact(CREATED_LAG, self._lag)

    def _pending(self) -> int:
        if self._pending_before is None:
            self._pending_before = int(self._cursor.execute(self._statements.pending_count).fetchone()[0])
        # What this batch did itself is not in the table before `finish`.
        return self._pending_before + self._pending_change

    def _ceiling_with(self, created_at: int) -> int:
        if self._ceiling is None:
            row = self._cursor.execute(self._statements.last_ceiling).fetchone()
            self._ceiling = created_at if row is None else int(row[0])
        self._ceiling = max(self._ceiling, created_at)
        self._lag = max(self._lag, self._ceiling - created_at)
        return self._ceiling

    def _count(self, workflow: str, status: JobStatus, change: int) -> None:
        self._moved[workflow, status.value] += change
        if status is JobStatus.PENDING:
            self._pending_change += change

    def _event(self, seq: int, job: Job, kind: Change, at: datetime, data: Mapping[str, Any]) -> None:
        status, attempt = job.status, job.attempt
        self._cursor.execute(
            self._statements.add_event,
            {
                "job_seq": seq,
                "kind": kind.value,
                "status": status.value,
                "attempt": attempt,
                "at": micros(at),
                "data": data_text(data),
            },
        )
        number = self._cursor.lastrowid
        assert number is not None  # an insert has just succeeded
        self.events.append(JobEvent(number, job.id, kind, status, attempt, at, data))
