"""Stores to test and jobs to put into them."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.job_store import Update
from runner.jobs import Change, Job, JobSpec, JobStatus, Outcome, Reason, claimed, ended
from runner.stores.memory import MemoryStore
from runner.stores.sql import SqlStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.job_store import JobStore
    from runner.jobs import JobEvent

KINDS = ("memory", "sqlite")
NOON = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)
_numbers = count(1)


def store_url(directory: Path) -> str:
    return f"sqlite:///{directory}/snakeline.db"


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        SqlStore.open(store_url(Path(name))).close()
        return (Path(name) / "snakeline.db").read_bytes()


def lay_store(directory: Path) -> None:
    """Put an empty store there, a copy of one that was made: to make one takes ten times as long."""
    file = os.open(directory / "snakeline.db", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as new:
        new.write(_empty())


def new_store(directory: Path, *, on_commit: Callable[[Sequence[JobEvent]], None] | None = None) -> SqlStore:
    """An empty store in a directory that has none; how one is made is another test's matter."""
    lay_store(directory)
    return SqlStore.open(store_url(directory), on_commit=on_commit)


def opened(file: Path) -> closing[SqlStore]:
    return closing(SqlStore.open(f"sqlite:///{file}"))


def open_store(
    kind: str, directory: Path, on_commit: Callable[[Sequence[JobEvent]], None] | None = None
) -> JobStore:
    if kind == "memory":
        return MemoryStore(on_commit=on_commit)
    if (directory / "snakeline.db").exists():
        return SqlStore.open(store_url(directory), on_commit=on_commit)
    return new_store(directory, on_commit=on_commit)


def a_job(*, job_id: str | None = None, at: datetime | None = None, **spec: Any) -> Job:
    """A pending job; without an id and a time, each is later than the one before."""
    number = next(_numbers)
    created = NOON + timedelta(milliseconds=number) if at is None else at
    return Job(
        id=job_id or f"{number:08x}-0000-7000-8000-{number:012x}",
        spec=JobSpec(**spec),
        status=JobStatus.PENDING,
        engine="mock",
        created_at=created,
        updated_at=created,
        retries_left=spec.get("max_retries", 0),
    )


def added(store: JobStore, job: Job | None = None, **spec: Any) -> Job:
    return store.add(job or a_job(**spec)).result(timeout=10).job


def changed(store: JobStore, before: Job, after: Job, kind: Change) -> Job:
    job = store.update([Update(before, after, kind)]).result(10)[0]
    assert job is not None
    return job


def ended_at(store: JobStore, at: datetime, job: Job | None = None) -> Job:
    """A job that failed then, submitted now or as `job` says."""
    job = added(store, job)
    running = changed(store, job, claimed(job, NOON - timedelta(days=9999)), Change.CLAIMED)
    return changed(store, running, ended(running, Outcome(Reason.LOST, ended_at=at)), Change.ENDED)
