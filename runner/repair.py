"""Finds what is damaged in a data directory that no service uses, and repairs it without losing any of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from runner.data_dir import DataDir
from runner.errors import RunnerError
from runner.job_damage import Finding, JobDamage
from runner.side_files import own_folders
from runner.stores.sql import salvage, sqlite, swap
from runner.stores.sql.condition import Condition, condition_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from runner.job_damage import Row
    from runner.settings import RunnerSettings


@dataclass(frozen=True, slots=True)
class Repair:
    """Everything found; `applied` says whether the remedies were to be carried out."""

    findings: tuple[Finding, ...]
    applied: bool

    @property
    def ok(self) -> bool:
        """Nothing is left to be done: what has no remedy is only said."""
        return all(f.is_done or (f.remedy is None and f.failure is None) for f in self.findings)


def repair(settings: RunnerSettings, *, apply: bool) -> Repair:
    """Look at the store and at the files of all jobs; carry out the remedies only if told to `apply` them.

    Nothing is changed otherwise, and nothing outside of the data directory and the store's folder ever.
    Raises DataDirUnusable when a service runs; StoreUnavailable when the database is no SQLite file.
    """
    if not settings.data_dir.exists():
        return Repair((), apply)
    with closing(DataDir(settings.data_dir)):
        data_dir_fd = os.open(settings.data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            findings: list[Finding] = []
            for finding in _findings(settings, data_dir_fd):
                if apply:
                    _carry_out(finding)
                findings.append(finding)
            return Repair(tuple(findings), apply)
        finally:
            os.close(data_dir_fd)


def _carry_out(finding: Finding) -> None:
    if finding.apply is None:
        return
    try:
        finding.apply()
    except OSError as error:
        finding.failure = error.strerror or str(error)
    except (RunnerError, sqlite3.Error) as error:
        finding.failure = " ".join(str(error).split())
    else:
        finding.is_done = True


def _findings(settings: RunnerSettings, data_dir_fd: int) -> Iterator[Finding]:
    damage = JobDamage(data_dir_fd)
    temporary = own_folders(f"/proc/self/fd/{data_dir_fd}")  # removed by the next start
    if settings.database_url.startswith("memory:"):
        yield from damage.find({}, temporary)  # it has forgotten them all
        return
    store = os.path.realpath(sqlite.path_of(settings.database_url))
    condition = yield from _store_findings(store)
    rows: Mapping[str, Row] | None = {} if condition.kind == "missing" else condition.jobs
    yield from damage.find(rows, condition.leftovers | temporary)


def _store_findings(store: str) -> Generator[Finding, None, Condition]:
    """What is wrong with the store; the answer is its condition with what was found repaired."""
    condition = condition_of(store)
    incoming = sqlite.incoming(store)
    match condition.kind:
        case "damaged":
            return (yield from _salvaged(store, condition))
        case "half restored":
            return (yield from _restored(store, condition))
        case "missing":
            yield Finding("store_missing", store, f"{condition.detail}: the next start makes a new one")
        case "whole":
            if os.path.lexists(incoming):
                yield Finding(
                    "leftover",
                    incoming,
                    "a restore or repair was cut short before it changed anything",
                    "removed",
                    os.lstat(incoming).st_size,
                    apply=lambda: swap.clear(incoming),
                )
        case "foreign" | "newer" | "unreadable":
            yield Finding("store_unusable", store, condition.detail, failure="left as it is")
        case _:
            assert_never(condition.kind)
    return condition


def _salvaged(store: str, damaged: Condition) -> Generator[Finding, None, Condition]:
    incoming = sqlite.incoming(store)
    finding = Finding("store_damaged", store, damaged.detail, size_bytes=os.path.getsize(store))
    try:
        swap.make_empty(incoming)
        found = salvage.salvage(store, incoming)
    except (OSError, RunnerError, sqlite3.Error) as error:
        swap.discard(incoming)
        finding.failure = f"no new store can be made: {' '.join(str(error).split())}"
        yield finding
        return damaged
    of = "" if found.expected is None else f" of {found.expected}"
    finding.remedy = (
        f"replaced by a new store with the {found.jobs}{of} jobs that can be read; "
        f"the damaged one is kept as {os.path.basename(store)}.damaged-TIME"
    )
    finding.apply = lambda: _install(store)
    new = condition_of(incoming)
    yield finding
    if not finding.is_done:
        swap.discard(incoming)
    return new


def _restored(store: str, half: Condition) -> Generator[Finding, None, Condition]:
    incoming = sqlite.incoming(store)
    new = condition_of(incoming)
    finding = Finding("store_missing", store, half.detail)
    if new.kind == "whole":
        finding.remedy = f"completed with the {new.detail} of the backup"
        finding.apply = lambda: _install(store)
    else:
        finding.failure = "the backup is not whole either: run `snakeline restore FILE` again"
    yield finding
    return new if new.kind == "whole" else half


def _install(store: str) -> None:
    swap.install(store, why="damaged")
