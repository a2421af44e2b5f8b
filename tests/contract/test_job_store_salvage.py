"""What is read of a damaged store, and that a whole one is made of it."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from runner.errors import StoreUnavailable
from runner.job_store import IdempotencyKey, JobQuery, Update
from runner.jobs import Change, Job, JobStatus, Outcome, Reason, claimed, ended
from runner.stores.sql import SqlStore, sqlite
from runner.stores.sql.condition import condition_of
from runner.stores.sql.rows import JOB_COLUMNS, job_of
from runner.stores.sql.salvage import Salvaged, salvage
from runner.stores.sql.schema import JOB_SPECS
from runner.stores.sql.schema import JOBS as JOBS_TABLE
from runner.stores.sql.statements import sql_of
from runner.stores.sql.swap import make_empty
from tests.support.stores import NOON, a_job, added, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JOBS = 400
PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Job]]:
    """A store at rest, and its jobs: some ended, one running, the rest pending."""
    file = tmp_path_factory.mktemp("whole") / "snakeline.db"
    with opened(file) as store:
        futures = [
            store.add(
                a_job(name=f"sample {n}", labels={"n": str(n % 7)}, parameters={"x": "y" * (n * 37 % 3000)}),
                key=IdempotencyKey(f"key {n}", "f"),
            )
            for n in range(JOBS)
        ]
        jobs = [future.result(10).job for future in futures]
        for n in range(100):
            [jobs[n]] = stored(store, Update(jobs[n], claimed(jobs[n], NOON), Change.CLAIMED))
            if n:
                outcome = Outcome(Reason.EXITED_ZERO, NOON, exit_code=0)
                [jobs[n]] = stored(store, Update(jobs[n], ended(jobs[n], outcome), Change.ENDED))
    return file, {job.id: job for job in jobs}


def stored(store: SqlStore, update: Update) -> list[Job]:
    return [job for job in store.update([update]).result(10) if job is not None]


@pytest.fixture
def copy(whole: tuple[Path, dict[str, Job]], tmp_path: Path) -> Path:
    file = tmp_path / "snakeline.db"
    file.write_bytes(whole[0].read_bytes())
    return file


def salvaged(file: Path) -> tuple[Salvaged, Path]:
    target = file.with_name("new.db")
    make_empty(str(target))
    found = salvage(str(file), str(target))
    assert condition_of(str(target)).kind == "whole"
    return found, target


def test_of_a_whole_store_everything_is_read(whole: tuple[Path, dict[str, Job]], copy: Path) -> None:
    assert condition_of(str(copy)).kind == "whole"
    found, target = salvaged(copy)
    assert found == Salvaged(JOBS, JOBS + 199, JOBS)
    with opened(copy) as before, opened(target) as after:
        assert after.events(limit=10_000) == before.events(limit=10_000)
        assert after.counts() == before.counts()
        assert after.running() == before.running()
        for query in (
            JobQuery(limit=500),
            JobQuery(q="sample 17"),
            JobQuery(labels=(("n", "3"),), limit=500),
            JobQuery(created_after=NOON, limit=500),
            JobQuery(statuses=(JobStatus.COMPLETED,), order="asc", limit=500),
        ):
            assert after.list(query) == before.list(query)
        assert after.add(a_job(), key=IdempotencyKey("key 5", "f")).result(10).replayed
        assert added(after).seq == added(before).seq
        assert after.events(after_seq=found.events, limit=9)[0].seq == found.events + 1
        assert after.delete(after.list(JobQuery(limit=1)).items[0]).result(10)


def pages(file: Path, numbers: Iterator[int]) -> None:
    with file.open("r+b") as opened:
        for number in numbers:
            opened.seek(number * PAGE_BYTES)
            opened.write(b"\xff" * PAGE_BYTES)


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)


def some_pages(file: Path) -> None:
    number_of = file.stat().st_size // PAGE_BYTES
    pages(file, (page for page in range(40, number_of) if page % 9 == 0))


def first_page(file: Path) -> None:
    pages(file, iter([0]))


def text_of_a_row(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("UPDATE job_specs SET spec = x'ff00' WHERE seq = 7")
        other.execute("UPDATE jobs SET status = 'nothing' WHERE seq = 9")
        other.execute("UPDATE job_events SET kind = 'nothing' WHERE seq = 3")


def wrong_counts(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("UPDATE job_counts SET jobs = jobs + 1 WHERE status = 'running'")


def lost_specifications(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("DELETE FROM job_specs WHERE seq > 390")


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (cut_off, 40),
        (some_pages, 150),
        (first_page, 0),
        (text_of_a_row, JOBS - 2),
        (wrong_counts, JOBS),
        (lost_specifications, JOBS - 10),
    ],
)
def test_of_a_damaged_store_rows_are_read_as_they_were_or_not_at_all(
    whole: tuple[Path, dict[str, Job]],
    copy: Path,
    damage: Callable[[Path], None],
    least: int,
    record_property: Callable[[str, object], None],
) -> None:
    damage(copy)
    assert condition_of(str(copy)).kind == "damaged"
    readable = readable_one_by_one(copy, whole[1])
    found, target = salvaged(copy)
    with opened(target) as store:
        jobs = store.list(JobQuery(limit=500)).items
        assert [job for job in jobs if job != whole[1][job.id]] == []
        assert {job.id for job in jobs} == readable
        assert len(jobs) == found.jobs >= least
        assert added(store).seq not in {job.seq for job in whole[1].values()}
    numbers = f"{damage.__name__}: {found.jobs} of {JOBS} jobs read, 0 wrong"
    record_property("numbers", numbers)
    print(numbers)  # noqa: T201 - told with -rA


def readable_one_by_one(file: Path, jobs: dict[str, Job]) -> set[str]:
    """The jobs whose rows can be had by asking for each alone."""
    found: set[str] = set()
    statement = (
        sa.select(*JOB_COLUMNS)
        .join_from(JOBS_TABLE, JOB_SPECS)
        .where(JOBS_TABLE.c.seq == sa.bindparam("seq"))
    )
    sql = sql_of(statement, sqlite.dialect())
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for job in jobs.values():
            with suppress(sqlite3.Error, StoreUnavailable):
                row = connection.execute(sql, {"seq": job.seq}).fetchone()
                found |= {job_of(row).id} if row is not None else set()
    return found


def test_nothing_is_invented_whatever_is_damaged(
    whole: tuple[Path, dict[str, Job]], copy: Path, record_property: Callable[[str, object], None]
) -> None:
    good = copy.read_bytes()
    dice = random.Random(20261)
    read = []
    for _ in range(12):
        content = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            page = dice.randrange(1, len(good) // PAGE_BYTES)
            start = page * PAGE_BYTES + dice.choice([0, dice.randrange(PAGE_BYTES)])
            content[start : (page + 1) * PAGE_BYTES] = dice.randbytes((page + 1) * PAGE_BYTES - start)
        copy.write_bytes(content)
        found, target = salvaged(copy)
        with opened(target) as store:
            jobs = store.list(JobQuery(limit=500)).items
            odd = [job for job in jobs if job.id not in whole[1]]
            same = sum(job == whole[1].get(job.id) for job in jobs)
        assert odd == []
        assert same >= len(jobs) - 2, "bytes of a text may change unnoticed: SQLite has no checksums"
        read.append(found.jobs)
    assert max(read) > JOBS * 0.95
    numbers = f"{len(read)} stores damaged at random: {read} of {JOBS} jobs read, 0 invented"
    record_property("numbers", numbers)
    print(numbers)  # noqa: T201 - told with -rA


def test_rows_that_are_out_of_order_before_a_damaged_page_are_no_trap(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection:
        [root] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'job_specs'").fetchone()
    content = bytearray(copy.read_bytes())
    start = (root - 1) * PAGE_BYTES
    assert content[start] == 5, "the root of a table with pages below it"
    cells = [
        int.from_bytes(content[start + 12 + 2 * i : start + 14 + 2 * i])
        for i in range(int.from_bytes(content[start + 3 : start + 5]))
    ]
    below = [int.from_bytes(content[start + cell : start + cell + 4]) for cell in cells]
    leaves = [(page - 1) * PAGE_BYTES for page in below]
    content[leaves[5] : leaves[5] + PAGE_BYTES] = content[leaves[1] : leaves[1] + PAGE_BYTES]
    content[leaves[6] : leaves[6] + PAGE_BYTES] = b"\xff" * PAGE_BYTES
    copy.write_bytes(content)
    found, _ = salvaged(copy)
    assert JOBS * 0.9 < found.jobs < JOBS


def test_a_number_that_may_have_been_given_out_is_not_used_again(copy: Path) -> None:
    with closing(sqlite3.connect(copy, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute("DELETE FROM sqlite_sequence")
        other.execute("DELETE FROM jobs WHERE seq > 300")
    _, target = salvaged(copy)
    with opened(target) as store:
        assert added(store).seq > JOBS


def test_jobs_in_the_log_of_a_killed_service_are_read_too(tmp_path: Path) -> None:
    with opened(tmp_path / "snakeline.db") as store:
        job = added(store)
        killed = tmp_path / "killed"
        killed.mkdir()
        for suffix in ("", "-wal"):
            (killed / f"snakeline.db{suffix}").write_bytes((tmp_path / f"snakeline.db{suffix}").read_bytes())
    found, target = salvaged(killed / "snakeline.db")
    assert found.jobs == 1
    with opened(target) as store:
        assert store.get(job.id) == replace(job)
