"""Follows a job's log to the end of the job, through all of its attempts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from snakeline.commands.plain import ColouredLines, plain
from snakeline.commands.session import note
from snakeline.commands.words import status_word, took

if TYPE_CHECKING:
    from collections.abc import Iterable

    from snakeline.client import Client, Job


def to_its_end(client: Client, job: Job, *, raw: bool = False, quiet: bool = False) -> Job:
    """Show the log of this attempt and of those that come after it; the job as it ended."""
    try:
        while True:
            number = job.attempt
            write(client.follow_log(job.id, attempt=number), raw=raw)
            job = client.get(job.id)
            while not job.has_ended and job.attempt == number:
                job = client.next_change(job)
            if job.has_ended and job.attempt == number:
                tell_end(job, quiet=quiet)
                return job
            note(f"Attempt {number} failed; attempt {job.attempt} begins.", quiet=quiet)
    except KeyboardInterrupt:
        note(runs_on(job), quiet=quiet)
        raise


def write(pieces: Iterable[str], *, raw: bool = False) -> None:
    """Text of a log, as it comes. On a terminal, colours alone get through: see `raw`."""
    lines = None if raw or not sys.stdout.isatty() else ColouredLines()
    try:
        for text in pieces:
            sys.stdout.write(text if lines is None else lines.feed(text))
            sys.stdout.flush()
    finally:
        if lines is not None:
            sys.stdout.write(lines.end())
            sys.stdout.flush()


def tell_end(job: Job, *, quiet: bool = False) -> None:
    """On stderr: how it ended, and the first real error."""
    if quiet:
        return
    sys.stdout.flush()
    known = [job.reason or "", f"exit code {job.exit_code}" if job.exit_code is not None else ""]
    known += [f"signal {job.exit_signal}" if job.exit_signal is not None else "", took(job)]
    note(f"{status_word(job.status)} ({', '.join(each for each in known if each and each != '-')})")
    if job.error_message:
        print(plain(job.error_message), file=sys.stderr, flush=True)


def runs_on(job: Job) -> str:
    return f"Job {job.id} runs on. `snakeline cancel {job.id}` ends it."
