"""What the files of each tenant take, and how long the record of who did what is kept."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runner.access import OPERATOR, Action, AuditQuery, Quota, audit_of
from runner.bootstrap import build_runner
from runner.errors import StorageQuotaExceeded
from runner.jobs import JobSpec
from runner.removal import JobRemoval
from runner.retention import Retention
from runner.stores.memory import MemoryStore
from runner.stores.sql import SqlStore
from tests.support.runners import settings_for
from tests.support.stores import KINDS, NOON, a_job, added, ended_at, store_url
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.jobs import Job

Store = MemoryStore | SqlStore
DAY = timedelta(days=1)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "jobs").mkdir()
    made = MemoryStore() if request.param == "memory" else SqlStore.open(store_url(tmp_path))
    yield made
    made.close()


@contextmanager
def retention(data_dir: Path, store: Store, **changes: Any) -> Iterator[Retention]:
    values = {"retention_s": None, "max_data_bytes": None, "first_after_s": 0.0, "count_every_s": 0.005}
    made = Retention(
        data_dir=data_dir,
        store=store,
        removal=JobRemoval(data_dir, store),
        access=store,
        **(values | changes),
    )
    made.start()
    try:
        yield made
    finally:
        made.close()


def with_files(data_dir: Path, job: Job, kib: int) -> Job:
    folder = data_dir / "jobs" / job.id
    folder.mkdir(exist_ok=True)
    (folder / "data").write_bytes(os.urandom(kib * 1024))
    return job


def ended_before(store: Store, age: timedelta, tenant: str, **spec: Any) -> Job:
    end = datetime.now(UTC) - age
    return ended_at(store, end, replace(a_job(at=end - DAY, **spec), tenant=tenant))


def test_the_files_of_each_tenant_are_counted_by_themselves(tmp_path: Path, store: Store) -> None:
    old = with_files(tmp_path, ended_before(store, 9 * DAY, "a"), 100)
    with_files(tmp_path, ended_before(store, DAY, "b"), 200)
    with_files(tmp_path, added(store, replace(a_job(), tenant="a")), 400)
    with retention(tmp_path, store, tenant_quota=Quota(max_bytes=1)) as counting:
        wait_until(lambda: counting.used_bytes, what="a first pass")
        of = [(counting.bytes_of_tenant(tenant) or 0) // 1024 for tenant in ("a", "b", "nobody")]
        assert 500 <= of[0] < 530
        assert 200 <= of[1] < 220
        assert of[2] == 0
        assert counting.used_bytes is not None
        assert sum(of) <= counting.used_bytes // 1024 <= sum(of) + 1
    age_s = (5 * DAY).total_seconds()
    with retention(tmp_path, store, tenant_quota=Quota(max_bytes=1), retention_s=age_s) as deleting:
        wait_until(lambda: _is_gone(store, old), what="its deletion")
        wait_until(lambda: 400 <= (deleting.bytes_of_tenant("a") or 0) // 1024 < 430, what="less for it")


def test_what_is_large_in_the_store_counts_as_files_do(tmp_path: Path, store: Store) -> None:
    """Else a tenant at its quota could fill the disk with jobs that it cancels at once."""
    ended_before(store, DAY, "a", targets=("x" * 50_000,) * 2)
    added(store, replace(a_job(parameters={"of": "y" * 100_000}), tenant="a"))
    added(store, replace(a_job(parameters={"of": "y" * 1_000}), tenant="b"))
    with retention(tmp_path, store, tenant_quota=Quota(max_bytes=1)) as counting:
        wait_until(lambda: counting.used_bytes is not None, what="a first pass")
        of = [counting.bytes_of_tenant(tenant) or 0 for tenant in ("a", "b")]
        assert 190_000 < of[0] <= 200_100
        assert of[1] == 0


def _is_gone(store: Store, job: Job) -> bool:
    return all(short.id != job.id for short in store.ended())


def test_nothing_is_counted_while_nothing_is_limited_and_a_quota_begins_it(
    tmp_path: Path, store: Store
) -> None:
    with_files(tmp_path, added(store, replace(a_job(), tenant="a")), 100)
    with retention(tmp_path, store) as counting:
        assert counting.bytes_of_tenant("a") is None
        store.set_quota("b", Quota(max_cores=1), NOON, OPERATOR).result(10)
        assert counting.bytes_of_tenant("a") is None
        store.set_quota("b", Quota(max_bytes=1), NOON, OPERATOR).result(10)
        wait_until(lambda: counting.bytes_of_tenant("a"), what="the files to be counted")


def test_a_tenant_with_too_many_files_is_refused_until_it_has_deleted_some(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path / "data", isolation="off", tenant_quota=Quota(max_bytes=1), database_url="memory://"
    )
    with closing(build_runner(settings, first_sweep_after_s=0)) as runner:
        jobs = runner.service.acting_for(OPERATOR)
        job = jobs.submit(JobSpec()).result(10).job
        with_files(settings.data_dir, job, 10)
        runner.retention.start()
        wait_until(lambda: runner.retention.bytes_of_tenant("default"), what="a first pass")
        assert isinstance(jobs.submit(JobSpec()).exception(10), StorageQuotaExceeded)


def test_records_that_are_too_old_are_forgotten(tmp_path: Path, store: Store) -> None:
    now = datetime.now(UTC)
    for days in (*range(900, 600, -1), 2, 1):
        job = replace(a_job(), tenant="a")
        audit = audit_of(OPERATOR, Action.JOB_SUBMITTED, job.id, tenant="a", at=now - days * DAY)
        store.add(job, audit=audit).result(10)
    with retention(tmp_path, store, audit_s=DAY.total_seconds() * 10):
        wait_until(lambda: len(store.audit(AuditQuery(limit=500)).items) == 2, what="the sweep")
    assert [(now - record.at).days for record in store.audit(AuditQuery()).items] == [1, 2]


def test_what_is_deleted_for_its_age_is_put_on_record(tmp_path: Path, store: Store) -> None:
    job = ended_before(store, 9 * DAY, "a", name="sample")
    with retention(tmp_path, store, retention_s=DAY.total_seconds()):
        wait_until(lambda: _is_gone(store, job), what="its deletion")
    [record] = store.audit(AuditQuery(subject=job.id)).items
    assert (record.actor, record.tenant, record.action) == ("retention", "a", Action.JOB_DELETED)
    assert record.data == {"name": "sample", "status": "failed", "why": "too old"}
