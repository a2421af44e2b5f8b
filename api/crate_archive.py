"""An ended job's run as a crate that can be sent: its document, and its files, its parameters and its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from pydantic_core import to_json

from api.crate_files import CONFIG, LOG, METADATA, NO_CRATE, README, WORK, CrateFiles, stand_in, told
from api.log_response import gap_marker
from api.packed_bytes import PackedBytes
from api.problems import Problem
from api.ro_crate import RunCrate
from api.zip_archive import Member
from api.zip_format import entry_name
from runner.file_listing import FileQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.callers_jobs import CallersJobs
    from runner.jobs import Job
    from runner.log_store import Log


@dataclass(frozen=True, slots=True)
class PackedCrate:
    """A crate's document and what else is needed to send it: little, however many tasks there are."""

    job: Job
    document: PackedContent
    folders: tuple[bytes, ...]
    log: LogContent


def packed_crate(jobs: CallersJobs, job_id: str, license_: str | None) -> PackedCrate:
    """Makes the document: a second of work for 10,000 tasks.

    Raises JobNotFound, Problem (409) for a job that has not ended or never ran, OSError.
    """
    job, _, job_log = jobs.log(job_id)
    if not job.status.is_terminal:
        raise Problem(NO_CRATE, f"The job is {job.status.value}: wait for its end.")
    if job.started_at is None or job.completed_at is None:
        raise Problem(NO_CRATE, "The job never ran.")
    log = LogContent(job_log, int(job.completed_at.timestamp() * 1e9))
    files = CrateFiles(jobs, job_id)
    crate = RunCrate(jobs, job, files, license_=license_, log_bytes=log.size_bytes)
    document = PackedContent(crate.document(), log.modified_ns)
    return PackedCrate(job, document, tuple(unquote_to_bytes(each) for each in crate.folders()), log)


def crate_members(jobs: CallersJobs, crate: PackedCrate) -> Iterator[Member]:
    """All of it, the document first. Raises as `JobOutputs.every` does."""
    job = crate.job

    def member(name: bytes, *pieces: bytes) -> Member:
        return Member(name, lambda: PackedContent(pieces, crate.log.modified_ns))

    yield Member(METADATA.encode(), lambda: crate.document)
    yield member(README.encode(), _readme(job))
    yield member(CONFIG.encode(), to_json(job.spec.parameters, indent=2), b"\n")
    yield Member(LOG.encode(), lambda: crate.log)
    for folder in (WORK.encode(), *crate.folders):  # a Dataset is looked for by its name
        yield member(folder)
    for file, opened in jobs.every_output(job.id, FileQuery()):
        yield Member(WORK.encode() + entry_name(file.path), opened)


def _readme(job: Job) -> bytes:
    title = job.spec.name or f"{job.spec.workflow} {job.id}"
    version = job.workflow_version or "unknown"
    lines = [
        f"# Run of {title}",
        "",
        f"Workflow `{job.spec.workflow}`, version `{version}`: {told(job)}.{stand_in(job)}",
        f"Job `{job.id}` of {job.owner}, from {job.started_at} to {job.completed_at}.",
        "",
        f"- `{WORK}` is its working directory: the workflow, its input and its results",
        f"- `{CONFIG}` has its parameters, `{LOG}` what it wrote",
        f"- `{METADATA}` tells machines all of this, and each task that ran (RO-Crate)",
        "",
    ]
    return "\n".join(lines).encode("utf-8", "replace")


class PackedContent(PackedBytes):
    """What an entry is made of, kept compressed; it may be read more than once."""

    def __init__(self, pieces: Iterable[bytes], modified_ns: int) -> None:
        super().__init__()
        self.modified_ns = modified_ns
        for piece in pieces:
            self.add(piece)

    def close(self) -> None:
        """It holds nothing open."""


class LogContent:
    """A log as it is downloaded: a line tells of bytes that are no longer kept."""

    def __init__(self, log: Log, modified_ns: int) -> None:
        self._log = log
        self.modified_ns = modified_ns
        gap = log.gap()
        self._end = self.size_bytes = log.size()
        if gap is not None:
            skipped = gap.end - gap.start
            self.size_bytes += len(gap_marker(skipped)) - skipped

    def pieces(self, most_bytes: int) -> Iterator[bytes]:
        offset = 0
        while offset < self._end:
            at, piece = self._log.read(offset, min(most_bytes, self._end - offset))
            if at > offset:
                yield gap_marker(at - offset)
            yield piece
            offset = at + len(piece)
            if not piece:
                return

    def close(self) -> None:
        """A log holds nothing open."""
