"""What every job store promises about tenants: the jobs of others are as if they were not there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command

from runner.access import OPERATOR, Action, AuditQuery, Quota, audit_of
from runner.errors import (
    IdempotencyMismatch,
    InvalidSpec,
    JobNotFound,
    QueueFull,
    StorageQuotaExceeded,
    TenantQueueFull,
)
from runner.job_store import Admission, IdempotencyKey, JobQuery, Update
from runner.jobs import Change, Job, JobStatus, cancel_asked, claimed, retried
from runner.stores.memory import MemoryStore
from runner.stores.sql import SqlStore
from runner.stores.sql.condition import condition_of
from runner.stores.sql.salvage import salvage
from runner.stores.sql.swap import make_empty
from tests.support.stores import KINDS, NOON, a_job, changed, ended_at, new_store, store_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.access import AuditRecord

Store = MemoryStore | SqlStore


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MemoryStore() if request.param == "memory" else new_store(tmp_path)
    yield made
    made.close()


def job_of(tenant: str, **spec: Any) -> Job:
    return replace(a_job(**spec), tenant=tenant, owner=f"{tenant}'s own")


def add(store: Store, tenant: str, **spec: Any) -> Job:
    return store.add(job_of(tenant, **spec)).result(10).job


def submitted(job: Job) -> AuditRecord:
    return audit_of(OPERATOR, Action.JOB_SUBMITTED, job.id, tenant=job.tenant, at=NOON)


# ---------------------------------------------------------------- whose job


def test_a_job_keeps_its_owner_its_tenant_and_what_isolates_its_attempt(store: Store) -> None:
    job = add(store, "a")
    assert (job.owner, job.tenant, job.isolation) == ("a's own", "a", None)
    running = changed(store, job, claimed(job, NOON, "cgroup+landlock"), Change.CLAIMED)
    assert store.get(job.id) == running
    assert running.isolation == "cgroup+landlock"


def test_a_job_of_another_tenant_is_not_found(store: Store) -> None:
    job = add(store, "a")
    assert store.get(job.id, tenant="a") == store.get(job.id) == job
    for job_id, tenant in ((job.id, "b"), ("unknown", "b"), ("unknown", None)):
        with pytest.raises(JobNotFound) as caught:
            store.get(job_id, tenant=tenant)
        assert str(caught.value) == f"There is no job {job_id!r}."


def test_every_page_has_the_jobs_of_one_tenant_only(store: Store) -> None:
    mine = [
        add(store, "a", name=f"sample {n}", labels={"k": str(n % 2)}, workflow=f"w{n % 2}") for n in range(8)
    ]
    for n in range(20):
        add(store, "b", name=f"sample {n}", labels={"k": str(n % 2)}, workflow=f"w{n % 2}")
    changed(store, mine[0], claimed(mine[0], NOON), Change.CLAIMED)
    mine = [store.get(job.id) for job in mine]
    last = mine[-1].created_at
    for workflow, labels, q, before, status in product(
        (None, "w0", "none"), ((), (("k", "0"),)), (None, "sample", "sa"), (None, last), (None, "running")
    ):
        wanted = [
            job
            for job in mine
            if workflow in (None, job.spec.workflow)
            and all(job.spec.labels[key] == value for key, value in labels)
            and (before is None or job.created_at < before)
            and status in (None, job.status.value)
        ]
        query = JobQuery(
            tenant="a",
            workflow=workflow,
            labels=labels,
            q=q,
            created_before=before,
            statuses=() if status is None else (JobStatus(status),),
            order="asc",
            limit=3,
        )
        page = store.list(query)
        assert (page.total, page.total_is_exact) == (len(wanted), True), query
        found = list(page.items)
        while page.has_more:
            page = store.list(replace(query, after_seq=found[-1].seq))
            found += page.items
        assert found == wanted, query
    other = add(store, "b", name="the only one")
    for q in ("the only one", "th", other.id):
        assert store.list(JobQuery(q=q)).items == (other,)
        assert store.list(JobQuery(tenant="a", q=q)).items == ()
    shared = {tenant: add(store, tenant, name="one of each") for tenant in ("a", "b")}
    for q in ("one of each", "on"):
        assert store.list(JobQuery(tenant="a", q=q)).items == (shared["a"],)
        assert store.list(JobQuery(q=q)).total == 2
    assert store.list(JobQuery()).total == 31
    assert store.list(JobQuery(tenant="nobody")).items == ()


@pytest.mark.parametrize("many", [100, 10], ids=["few", "more-than-are-looked-through"])
def test_a_total_does_not_tell_what_others_have(
    store: Store, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many jobs of one's own as names are counted, one more of anybody's could be told."""
    monkeypatch.setattr("runner.stores.sql.pages.COMBINED_STOPS_AT", 8)
    monkeypatch.setattr("runner.stores.sql.pages._MANY_NAMES", many)
    theirs = replace(job_of("b", name="patient 17", labels={"k": "v"}), created_at=NOON + timedelta(1))
    for _ in range(8):
        add(store, "a", name=f"patient 17 {theirs.id}", labels={"k": "v"})
    for _ in range(8):
        add(store, "a", name="another", labels={"k": "v"})
    of_theirs = NOON + timedelta(hours=23), NOON + timedelta(hours=25)
    asked = [
        JobQuery(
            tenant="a",
            limit=2,
            q=q,
            labels=labels,
            statuses=statuses,
            created_after=after,
            created_before=before,
        )
        for q, labels, statuses, (after, before) in product(
            ("patient", "pa", theirs.id, None),
            ((), (("k", "v"),)),
            ((), (JobStatus.PENDING,)),
            ((None, None), of_theirs),
        )
    ]
    pages = [store.list(query) for query in asked]
    store.add(theirs).result(10)
    for query, page in zip(asked, pages, strict=True):
        assert store.list(query) == page, query


def test_counts_and_events_are_those_of_the_tenant(store: Store) -> None:
    job = add(store, "a")
    add(store, "b")
    ended_at(store, NOON, job_of("b"))
    assert store.counts(tenant="a")[JobStatus.PENDING] == 1
    assert store.counts(tenant="b")[JobStatus.FAILED] == 1
    assert sum(store.counts(tenant="nobody").values()) == 0
    assert sum(store.counts().values()) == 3
    [event] = store.events(tenant="a")
    assert (event.job_id, event.tenant) == (job.id, "a")
    assert store.events(tenant="b", job_id=job.id) == []
    assert len(store.events()) == 5
    assert [short.tenant for short in store.ended()] == ["b"]


def test_the_pending_jobs_of_one_tenant_or_of_all(store: Store) -> None:
    first, large = add(store, "a", cores=2), add(store, "a", cores=3, priority=1)
    other = add(store, "b", cores=5)
    assert store.pending(tenant="a", max_cores=9, limit=9) == [large, first]
    assert store.pending(tenant="a", max_cores=2, limit=9) == [first]
    assert store.pending(max_cores=9, limit=9) == [large, first, other]
    assert store.waiting_tenants() == {"a": 2, "b": 5}
    changed(store, first, cancel_asked(first, NOON), Change.CANCEL_REQUESTED)
    changed(store, other, claimed(other, NOON), Change.CLAIMED)
    assert store.waiting_tenants() == {"a": 3}


# ---------------------------------------------------------------- keys of idempotency


def test_two_tenants_may_use_the_same_idempotency_key(store: Store) -> None:
    key = IdempotencyKey("k", "f")
    one = store.add(job_of("a"), key=key).result(10)
    two = store.add(job_of("b"), key=key).result(10)
    assert (one.replayed, two.replayed) == (False, False)
    again = [store.add(job_of(tenant), key=key).result(10) for tenant in ("a", "b")]
    assert [(answer.job, answer.replayed) for answer in again] == [(one.job, True), (two.job, True)]
    other_body = store.add(job_of("c"), key=IdempotencyKey("k", "g"))
    assert other_body.exception(10) is None
    assert isinstance(store.add(job_of("a"), key=IdempotencyKey("k", "g")).exception(10), IdempotencyMismatch)
    ended = ended_at(store, NOON, job_of("d"))
    assert store.delete(ended).result(10)


# ---------------------------------------------------------------- quotas


def test_a_full_tenant_is_refused_and_others_are_not(store: Store) -> None:
    quota = Quota(max_pending=2)
    for _ in range(2):
        store.add(job_of("a"), quota=quota, max_pending=100).result(10)
    refused = store.add(job_of("a"), quota=quota, max_pending=100).exception(10)
    assert isinstance(refused, TenantQueueFull)
    assert "tenant 'a'" in str(refused)
    store.add(job_of("b"), quota=quota, max_pending=100).result(10)
    assert isinstance(store.add(job_of("b"), quota=quota, max_pending=3).exception(10), QueueFull)
    assert store.counts()[JobStatus.PENDING] == 3


def test_a_retry_is_held_to_the_same_limits(store: Store) -> None:
    quota = Quota(max_pending=1)
    ended = ended_at(store, NOON, job_of("a"))
    store.add(job_of("a")).result(10)
    again = Update(ended, retried(ended, NOON), Change.RETRIED, admission=Admission(100, quota, 0))
    assert isinstance(store.update([again]).exception(10), TenantQueueFull)
    full = replace(again, admission=Admission(max_pending=1))
    assert isinstance(store.update([full]).exception(10), QueueFull)
    assert store.get(ended.id) == ended
    assert store.update([replace(again, admission=Admission(2, Quota(max_pending=2), 0))]).result(10)[0]
    assert store.counts(tenant="a")[JobStatus.PENDING] == 2


def test_a_tenants_own_quota_goes_before_the_default(store: Store) -> None:
    store.set_quota("a", Quota(max_pending=1), NOON, OPERATOR).result(10)
    default = Quota(max_pending=5, max_cores=2)
    store.add(job_of("a"), quota=default).result(10)
    assert isinstance(store.add(job_of("a"), quota=default).exception(10), TenantQueueFull)
    too_large = store.add(job_of("a", cores=3), quota=default).exception(10)
    assert isinstance(too_large, InvalidSpec)
    assert [error.pointer for error in too_large.errors] == ["/cores"]
    store.add(job_of("a", cores=3)).result(10)  # without a default there are no limits


def test_a_tenant_whose_files_have_reached_its_quota_is_refused(store: Store) -> None:
    quota = Quota(max_bytes=2**30)
    store.add(job_of("a"), quota=quota, used_bytes=None).result(10)  # not measured yet
    store.add(job_of("a"), quota=quota, used_bytes=2**30 - 1).result(10)
    refused = store.add(job_of("a"), quota=quota, used_bytes=2**30).exception(10)
    assert isinstance(refused, StorageQuotaExceeded)
    assert "1.0 GiB" in str(refused)


def test_a_replay_is_answered_whatever_the_quota_says(store: Store) -> None:
    key = IdempotencyKey("k", "f")
    job = store.add(job_of("a"), key=key, quota=Quota(max_pending=1)).result(10).job
    answer = store.add(job_of("a"), key=key, quota=Quota(max_pending=1), used_bytes=2**60).result(10)
    assert (answer.job, answer.replayed) == (job, True)


def test_jobs_added_together_fill_the_quota_together(store: Store) -> None:
    futures = [store.add(job_of("a"), quota=Quota(max_pending=10)) for _ in range(50)]
    assert sum(future.exception(10) is None for future in futures) == 10


# ---------------------------------------------------------------- the record


def test_a_change_and_its_record_are_one(store: Store) -> None:
    key = IdempotencyKey("k", "f")
    job = job_of("a")
    stored = store.add(job, key=key, audit=submitted(job)).result(10).job
    for refused in (job_of("a"), job_of("a")):
        store.add(refused, key=key, audit=submitted(refused)).result(10)  # replayed: nothing was changed
        store.add(refused, quota=Quota(max_pending=0), audit=submitted(refused)).exception(10)
    cancelled = cancel_asked(stored, NOON)
    audit = audit_of(OPERATOR, Action.JOB_CANCELLED, job.id, tenant="a", at=NOON)
    update = Update(stored, cancelled, Change.CANCEL_REQUESTED, audit=audit)
    assert store.update([update]).result(10) == [cancelled]
    assert store.update([update]).result(10) == [None]  # it lost its race
    gone = audit_of(OPERATOR, Action.JOB_DELETED, job.id, tenant="a", at=NOON)
    assert store.delete(stored, audit=gone).result(10) is False
    assert store.delete(cancelled, audit=gone).result(10) is True
    actions = [record.action for record in store.audit(AuditQuery(subject=job.id)).items]
    assert actions == [Action.JOB_DELETED, Action.JOB_CANCELLED, Action.JOB_SUBMITTED]
    assert len(store.audit(AuditQuery()).items) == 3


# ---------------------------------------------------------------- a store from before there were tenants


def test_a_store_from_before_there_were_tenants_is_upgraded_with_all_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = _make_store_before_tenants(tmp_path, monkeypatch)
    with closing(SqlStore.open(store_url(tmp_path))) as store:
        page = store.list(JobQuery(tenant="default", labels=(("k", "v"),), order="asc"))
        assert [job.id for job in page.items] == ids
        assert {(job.owner, job.tenant, job.isolation) for job in page.items} == {
            ("operator", "default", None)
        }
        assert store.list(JobQuery(tenant="default", q="sample")).total == 3
        assert store.counts(tenant="default") == store.counts()
        assert store.counts()[JobStatus.PENDING] == 3
        assert store.waiting_tenants() == {"default": 1}
        replayed = store.add(job_of("default"), key=IdempotencyKey("k0", "f")).result(10)
        assert (replayed.job.id, replayed.replayed) == (ids[0], True)
        assert store.add(job_of("b"), key=IdempotencyKey("k0", "f")).result(10).replayed is False
        assert store.keys() == []
        assert store.audit(AuditQuery()).items == ()


def test_a_store_from_before_there_were_tenants_can_be_checked_and_salvaged_without_an_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = _make_store_before_tenants(tmp_path, monkeypatch)
    condition = condition_of(str(tmp_path / "snakeline.db"))
    assert (condition.kind, condition.detail) == ("whole", "3 jobs")
    target = tmp_path / "new" / "snakeline.db"
    target.parent.mkdir()
    make_empty(str(target))
    salvaged = salvage(str(tmp_path / "snakeline.db"), str(target))
    assert (salvaged.jobs, salvaged.events, salvaged.expected) == (3, 3, 3)
    assert condition_of(str(target)).kind == "whole"
    with closing(SqlStore.open(store_url(target.parent))) as store:
        assert [job.id for job in store.list(JobQuery(tenant="default", order="asc")).items] == ids


def _make_store_before_tenants(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three pending jobs, written with SQL as it was then."""
    upgrade = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr("alembic.command.upgrade", lambda config, _: upgrade(config, "0002"))
        SqlStore.open(store_url(directory)).close()
    ids = [f"{number:08x}-0000-7000-8000-000000000000" for number in range(3)]
    with closing(sqlite3.connect(directory / "snakeline.db")) as connection, connection:
        for number, job_id in enumerate(ids, 1):
            connection.execute(
                "INSERT INTO jobs (seq, id, version, status, workflow, name, name_folded, engine, cores, "
                "priority, max_retries, retries_left, attempt, created_at, created_ceiling, updated_at, "
                "idempotency_key, idempotency_fingerprint) VALUES "
                "(?, ?, 1, 'pending', 'demo', 'sample', 'sample', 'mock', 1, 0, 0, 0, 1, ?, ?, ?, ?, 'f')",
                (number, job_id, number, number, number, f"k{number - 1}"),
            )
            spec = '{"parameters":{},"targets":[],"options":{},"labels":{"k":"v"}}'
            connection.execute("INSERT INTO job_specs VALUES (?, ?)", (number, spec))
            connection.execute("INSERT INTO job_labels VALUES ('k', 'v', ?)", (number,))
            connection.execute("INSERT INTO job_names (rowid, name) VALUES (?, 'sample')", (number,))
            connection.execute(
                "INSERT INTO job_events (job_seq, kind, status, attempt, at, data) "
                "VALUES (?, 'submitted', 'pending', 1, ?, '{}')",
                (number, number),
            )
        connection.execute("INSERT INTO job_counts VALUES ('demo', 'pending', 3)")
    return ids
