"""Ended jobs with files, and what is left of them after a deletion."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.errors import JobNotFound
from tests.support.stores import NOON, ended_at

if TYPE_CHECKING:
    from pathlib import Path

    from runner.job_store import JobStore
    from runner.jobs import Job

NAMES = ("attempts/1/log.0", "attempts/1/exit.json", "work/out/result.txt")


def on_and_on() -> None:
    pass


def files_of(data_dir: Path, job: Job) -> Path:
    folder = data_dir / "jobs" / job.id
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(job.id)
    return folder


def an_ended_job(store: JobStore, data_dir: Path) -> Job:
    job = ended_at(store, NOON)
    files_of(data_dir, job)
    return job


def is_whole(data_dir: Path, job: Job) -> bool:
    folder = data_dir / "jobs" / job.id
    return all((folder / name).read_text() == job.id for name in NAMES)


def is_gone(store: JobStore, data_dir: Path, job: Job) -> bool:
    """Row, files and every trace."""
    with pytest.raises(JobNotFound):
        store.get(job.id)
    return (
        not os.path.lexists(data_dir / "jobs" / job.id)
        and os.listdir(data_dir / "trash") == []
        and store.leftovers() == []
    )
