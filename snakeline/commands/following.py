"""Follows a job's log to the end of the job, through all of its attempts."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from snakeline.commands.plain import ColouredLines, plain
from snakeline.commands.session import note
from snakeline.commands.words import status_word, took

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from snakeline.client import Client, Job
    from snakeline.commands.waits import Waits


def to_its_end(client: Client, job: Job, *, waits: Waits, quiet: bool = False) -> Job:
    """Show the log of this attempt and of those that come after it; the job as it ended."""
    while True:
        number = job.attempt
        write(client.follow_log(job.id, attempt=number), waits=waits)
        job = client.get(job.id)
        while not job.has_ended and job.attempt == number:
            job = client.next_change(job)
        if job.has_ended and job.attempt == number:
            tell_end(job, quiet=quiet)
            return job
        note(f"Attempt {number} failed; attempt {job.attempt} begins.", quiet=quiet)


def write(pieces: Iterable[str], *, raw: bool = False, waits: Waits | None = None) -> None:
    """Text of a log, as it comes. On a terminal, colours alone get through: see `raw`."""
    lines = None if raw or not sys.stdout.isatty() else ColouredLines()
    try:
        for text in pieces:
            sys.stdout.write(text if lines is None else lines.feed(text))
            sys.stdout.flush()
            if waits is not None:
                waits.is_within_a_line = not text.endswith("\n")
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


@contextmanager
def may_be_left(*job_ids: str, url: str | None, profile: str | None, quiet: bool = False) -> Iterator[None]:
    """Say, when Ctrl-C or a service that is away ends the wait for these jobs, how to come back to them."""
    try:
        yield
    except BaseException as error:
        from snakeline.client.errors import Unreachable  # noqa: PLC0415 - not for --help

        if not isinstance(error, KeyboardInterrupt | Unreachable):
            raise
        sys.stdout.flush()
        at = f" --url {quote(url)}" if url else f" --profile {quote(profile)}" if profile else ""
        for job_id in job_ids:
            note(
                f"Job {job_id} goes on: `snakeline watch {job_id}{at}` comes back to it, "
                f"`snakeline cancel {job_id}{at}` ends it.",
                quiet=quiet,
            )
        raise
