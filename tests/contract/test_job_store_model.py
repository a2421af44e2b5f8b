"""Random operations and queries: the durable store against the one in memory and its own rows."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.access import OPERATOR, Action, AuditQuery, Quota, audit_of
from runner.errors import JobNotFound, RunnerError
from runner.job_store import IdempotencyKey, JobQuery, Update
from runner.jobs import (
    Change,
    Job,
    JobSpec,
    JobStatus,
    Outcome,
    Progress,
    Reason,
    Usage,
    cancel_asked,
    claimed,
    ended,
    progressed,
    retried,
)
from runner.stores.memory import MemoryStore
from runner.stores.sql import SqlStore, sqlite
from runner.stores.sql.page_selects import Shape, examined_select, matched_select, page_select
from runner.stores.sql.statements import sql_of
from tests.support.stores import NOON, a_job, open_store, store_url

if TYPE_CHECKING:
    from concurrent.futures import Future

    from runner.jobs import JobEvent

# Few different values, so that queries meet jobs.
_TIMES = st.integers(-3, 3).map(lambda hours: NOON + timedelta(hours=hours))
_TENANTS = st.sampled_from(["default", "t1", "t2"])
_WORKFLOWS = st.sampled_from(["demo", "count"])
_LABELS = st.dictionaries(st.sampled_from(["a", "b", "é"]), st.sampled_from(["1", "2", ""]), max_size=3)
_NAMES = st.none() | st.text(st.sampled_from("abAB1-%_\"'*ß𝒳 "), min_size=1, max_size=6)
_SPECS = st.builds(
    JobSpec,
    workflow=_WORKFLOWS,
    name=_NAMES,
    labels=_LABELS,
    cores=st.integers(1, 3),
    priority=st.integers(-1, 1),
    max_retries=st.integers(0, 2),
    timeout_s=st.none() | st.floats(0.001, 1e9),
    parameters=st.dictionaries(
        st.text(max_size=3),
        st.none() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=3),
        max_size=2,
    ),
)
_QUERIES = st.builds(
    JobQuery,
    tenant=st.none() | _TENANTS,
    statuses=st.lists(st.sampled_from(JobStatus), max_size=5).map(tuple),
    workflow=st.none() | _WORKFLOWS,
    labels=_LABELS.map(lambda labels: tuple(labels.items())),
    q=st.none()
    | st.text(st.sampled_from("abAB1-%_\"'*ß𝒳 "), max_size=4)
    | st.sampled_from(["019aaaa0", "019aaaa0-0"]),
    created_after=st.none() | _TIMES,
    created_before=st.none() | _TIMES,
    order=st.sampled_from(["asc", "desc"]),
    limit=st.integers(1, 4),
    after_seq=st.none() | st.integers(0, 12),
)
_KEYS = st.none() | st.builds(IdempotencyKey, st.sampled_from(["k1", "k2"]), st.sampled_from(["f", "g"]))
_OUTCOMES = st.builds(
    Outcome,
    reason=st.sampled_from(Reason),
    ended_at=_TIMES,
    exit_code=st.none() | st.integers(0, 255),
    error_message=st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
    usage=st.none()
    | st.builds(Usage, st.floats(0, 1e6), st.integers(0, 2**60), st.integers(0), st.integers(0)),
)


_LIMITS = st.none() | st.integers(1, 6)
_QUOTAS = st.builds(Quota, max_cores=_LIMITS, max_pending=_LIMITS, max_bytes=_LIMITS)
_AUDITS = st.builds(
    AuditQuery,
    tenant=st.none() | _TENANTS,
    actor=st.none() | st.sampled_from(["operator", "nobody"]),
    action=st.none() | st.sampled_from(Action),
    subject=st.none() | st.sampled_from(["019aaaa0-0000", "019aaaa1-0001", "t1"]),
    after_seq=st.integers(0, 3),
    before_seq=st.none() | st.integers(0, 20),
    limit=st.integers(1, 5),
)


def _answer(future: Future[Any]) -> Any:
    """What a future holds, or the kind of its refusal."""
    error = future.exception(10)
    if isinstance(error, RunnerError):
        return type(error)
    return future.result()


class Stores(RuleBasedStateMachine):
    """One SQL store and one in memory, told the same and asked the same."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where that is possible: what is tested here is not the disk.
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._directory = tempfile.TemporaryDirectory(dir=shm)
        self._published: list[JobEvent] = []
        self._sql = self._open()
        self._memory = MemoryStore()
        self._numbers = count()
        self._jobs: list[Job] = []  # every version ever seen, the old ones too

    def _open(self) -> SqlStore:
        store = open_store("sqlite", Path(self._directory.name), self._published.extend)
        assert isinstance(store, SqlStore)
        return store

    def teardown(self) -> None:
        self._sql.close()
        self._directory.cleanup()

    def _both(self, call: str, *arguments: Any, **keywords: Any) -> Any:
        stores = (self._sql, self._memory)
        answers: list[Any]
        if call == "_found":
            answers = [_found(store, *arguments) for store in stores]
        else:
            answers = [getattr(store, call)(*arguments, **keywords) for store in stores]
        sql, memory = [_answer(a) if hasattr(a, "result") else a for a in answers]
        assert sql == memory
        return sql

    @rule(
        spec=_SPECS,
        at=_TIMES,
        tenant=_TENANTS,
        key=_KEYS,
        max_pending=st.none() | st.integers(0, 4),
        quota=st.none() | _QUOTAS,
    )
    def add(
        self,
        spec: JobSpec,
        at: Any,
        tenant: str,
        key: IdempotencyKey | None,
        max_pending: int | None,
        quota: Quota | None,
    ) -> None:
        number = next(self._numbers)
        job = replace(
            a_job(at=at, job_id=f"019aaaa{number % 3}-{number:04d}"),
            spec=spec,
            retries_left=spec.max_retries,
            tenant=tenant,
            owner=f"{tenant}'s",
        )
        audit = audit_of(OPERATOR, Action.JOB_SUBMITTED, job.id, tenant=tenant, at=at)
        answer = self._both(
            "add", job, key=key, max_pending=max_pending, quota=quota, used_bytes=5, audit=audit
        )
        if not isinstance(answer, type):
            self._jobs.append(answer.job)

    @precondition(lambda self: self._jobs)
    @rule(data=st.data(), at=_TIMES, outcome=_OUTCOMES, size=st.integers(1, 3))
    def update(self, data: st.DataObject, at: Any, outcome: Outcome, size: int) -> None:
        updates = []
        for _ in range(size):
            before = data.draw(st.sampled_from(self._jobs[-6:]))
            after, kind = _step(before, at, outcome, retry=data.draw(st.booleans()))
            audit = audit_of(OPERATOR, Action.JOB_CANCELLED, before.id, tenant=before.tenant, at=at)
            updates.append(Update(before, after, kind, {"n": size}, audit))
        answer = self._both("update", updates)
        self._jobs.extend(job for job in answer if job)

    @precondition(lambda self: self._jobs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self._jobs[-6:]))
        audit = audit_of(OPERATOR, Action.JOB_DELETED, job.id, tenant=job.tenant, at=NOON)
        self._both("delete", job, audit=audit)

    @precondition(lambda self: self._jobs)
    @rule(data=st.data(), tenant=st.none() | _TENANTS)
    def get(self, data: st.DataObject, tenant: str | None) -> None:
        job = data.draw(st.sampled_from(self._jobs[-6:]))
        self._both("_found", job.id, tenant)

    @rule(tenant=_TENANTS, quota=_QUOTAS)
    def set_quota(self, tenant: str, quota: Quota) -> None:
        self._both("set_quota", tenant, quota, NOON, OPERATOR)
        self._both("quotas")
        self._both("keys_version")

    @rule(query=_AUDITS)
    def ask_who_did_what(self, query: AuditQuery) -> None:
        self._both("audit", query)

    @rule(before=_TIMES, limit=st.integers(1, 3))
    def forget_who_did_what(self, before: Any, limit: int) -> None:
        self._both("forget_audit", before, limit=limit)

    @rule(queries=st.lists(_QUERIES, min_size=5, max_size=20))
    def ask(self, queries: list[JobQuery]) -> None:
        for query in queries:
            self._both("list", query)

    @rule(max_cores=st.integers(0, 4), limit=st.integers(0, 4), tenant=st.none() | _TENANTS)
    def queue(self, max_cores: int, limit: int, tenant: str | None) -> None:
        self._both("pending", max_cores=max_cores, limit=limit, tenant=tenant)
        self._both("queue_places", self._both("pending", max_cores=9, limit=99, tenant=tenant))
        self._both("waiting_tenants")
        self._both("running")

    @rule()
    def open_again(self) -> None:
        self._sql.close()
        self._sql = self._open()

    @invariant()
    def counts_and_events_agree(self) -> None:
        for tenant in (None, "default", "t1", "t2"):
            self._both("counts", tenant=tenant)
        self._both("events", tenant="t1", limit=1000)
        self._both("tenants")
        events = self._both("events", limit=1000)
        last_seen = events[-1:]
        assert last_seen == [] or last_seen[0] in self._published
        seqs = [event.seq for event in self._published]
        assert seqs == sorted(set(seqs))
        with closing(sqlite3.connect(Path(self._directory.name) / "snakeline.db")) as connection:
            recount = (
                "SELECT tenant, workflow, status, count(*) FROM jobs GROUP BY 1, 2, 3 "
                "UNION ALL SELECT '*', workflow, status, count(*) FROM jobs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            )
            kept = "SELECT * FROM job_counts WHERE jobs <> 0 ORDER BY 1, 2, 3"
            assert connection.execute(kept).fetchall() == connection.execute(recount).fetchall()
            for orphans in (
                "SELECT 1 FROM job_labels WHERE seq NOT IN (SELECT seq FROM jobs)",
                "SELECT 1 FROM job_specs WHERE seq NOT IN (SELECT seq FROM jobs)",
                "SELECT 1 FROM job_events WHERE job_seq NOT IN (SELECT seq FROM jobs)",
            ):
                assert connection.execute(orphans).fetchone() is None


def _found(store: SqlStore | MemoryStore, job_id: str, tenant: str | None) -> Job | None:
    try:
        return store.get(job_id, tenant=tenant)
    except JobNotFound:
        return None


def _step(before: Job, at: Any, outcome: Outcome, *, retry: bool) -> tuple[Job, Change]:
    match before.status:
        case JobStatus.PENDING if retry:
            return cancel_asked(before, at), Change.CANCEL_REQUESTED
        case JobStatus.PENDING:
            return claimed(before, at), Change.CLAIMED
        case JobStatus.RUNNING if retry:
            return progressed(before, at, Progress(3, 1), outcome.usage), Change.PROGRESSED
        case JobStatus.RUNNING:
            return ended(before, outcome), Change.ENDED
        case JobStatus.FAILED | JobStatus.CANCELLED:
            return retried(before, at), Change.RETRIED
        case JobStatus.COMPLETED:
            return replace(before, version=before.version + 1), Change.PROGRESSED


TestStores = Stores.TestCase
TestStores.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would outlast the test's time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# ---------------------------------------------------------------- plans


def _shapes() -> list[Shape]:
    shapes = []
    for walk, tenant, statuses, workflow, labels, name, by_id, created, order in product(
        ("jobs", "created", "status", "workflow", "label", "name"),
        (False, True),
        (0, 3),
        (False, True),
        (0, 2),
        (None, "part", "start"),
        (False, True),
        (False, True),
        ("asc", "desc"),
    ):
        impossible = (
            (walk == "created" and not created)
            or (walk == "status" and not statuses)
            or (walk == "workflow" and not (workflow and statuses))
            or (walk == "label" and not labels)
            or (walk == "name" and name is None)
            or (by_id and name is None)
        )
        if not impossible:
            shapes.append(Shape(walk, tenant, statuses, workflow, labels, name, by_id, created, order))  # type: ignore[arg-type]
    return shapes


@pytest.mark.parametrize("select", [page_select, matched_select, examined_select])
def test_no_page_and_no_count_ever_scans_a_table_or_sorts_one(tmp_path: Path, select: Any) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    dialect = sqlite.dialect()
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
        for shape in _shapes():
            if shape.walk == "created" and select is page_select:
                continue  # only ever counted
            if shape.order == "asc" and select is not page_select:
                continue  # a count has no order
            sql = sql_of(select(shape, 2), dialect)
            values = dict.fromkeys(_parameters(sql), 1)
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            for step in plan:
                assert not step.startswith("SCAN ") or _BOUNDED_SCAN.fullmatch(step), (shape, plan)
                # A range of ids is the one thing that does not come in the order of seq.
                several = shape.walk in ("status", "workflow") or shape.id_prefix
                assert "TEMP B-TREE FOR ORDER BY" not in step or several, (shape, plan)


# Results that are limited already, and the index of names, which is always asked with MATCH.
_BOUNDED_SCAN = re.compile(r"SCAN (found|part_\d+|candidates|counted|job_names VIRTUAL TABLE INDEX \d+:M.*)")


def _parameters(sql: str) -> set[str]:
    return set(re.findall(r":(\w+)", sql))
