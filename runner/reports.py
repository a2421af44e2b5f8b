"""The engine's report of an ended job: made on demand in the job's folder, and kept beside it."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog

from runner.access import OPERATOR
from runner.attempt_files import REPORT, AttemptFiles
from runner.beneath import open_file
from runner.disk_trouble import no_room_for, telling_trouble
from runner.errors import BackendUnavailable, InvalidTransition, ReportImpossible, ReportNotFound
from runner.job_files import OpenedFile, open_job_folder
from runner.ports import Handle
from runner.side_answers import explained, record_of, request_for
from runner.side_files import IN_A_JOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.access import Caller
    from runner.job_store import JobStore
    from runner.jobs import Job
    from runner.log_store import LogStore
    from runner.ports import Engine, Workflow
    from runner.settings import RunnerSettings
    from runner.side_runs import SideRuns

_log = structlog.get_logger(__name__)

_MOST_BYTES: Final = 2**30
_PIECE_BYTES: Final = 64 * 2**20


class Reports:
    """Thread-safe; every method waits for the disk, and `make` for the engine.

    A job has one report at most: that of its last `make`.
    """

    def __init__(
        self,
        *,
        settings: RunnerSettings,
        store: JobStore,
        engine: Engine,
        workflow_of: Callable[[Job], Workflow],
        logs: LogStore,
        side_runs: SideRuns,
        grown: Callable[[str], None],
    ) -> None:
        """`grown` is told the id of a job whose files have changed after its end."""
        self._settings = settings
        self._store = store
        self._workflow_of = workflow_of
        self._engine = engine
        self._logs = logs
        self._side_runs = side_runs
        self._grown = grown
        self._jobs_dir = os.path.join(settings.data_dir, "jobs")

    def make(self, job_id: str, *, caller: Caller = OPERATOR) -> OpenedFile:
        """Have the engine report on the job, and keep what it has written; to be closed by its reader.

        No rule runs, and no attempt of the job meanwhile. Raises JobNotFound, JobBusy, ReportImpossible,
        InvalidTransition before the job's end, WorkflowNotFound, EngineUnavailable, BackendUnavailable,
        ShuttingDown, StorageFull.
        """
        self._store.get(job_id, tenant=caller.visible_tenant)
        with self._side_runs.holding(job_id):
            job = self._store.get(job_id, tenant=caller.visible_tenant)
            if not job.status.is_terminal:
                raise InvalidTransition(job.id, job.status.value, "reported")
            files = AttemptFiles.of(self._settings.data_dir, job.id, IN_A_JOB)
            if not os.path.isdir(files.work):
                raise ReportImpossible(f"Job {job.id} never ran: there is nothing to report on.")
            self._remove_draft(job.id)
            timeout_s = self._settings.report_timeout_s
            command = self._engine.report(job, self._workflow_of(job), files)
            request = request_for(Handle(job.id, IN_A_JOB), command, None, job.spec, timeout_s)
            try:
                with (
                    telling_trouble("the report's files", BackendUnavailable),
                    self._side_runs.run(request, timeout_s) as end,
                ):
                    record = record_of(end)
                    if record.exit_code != 0:
                        timeout = ("SNAKELINE_REPORT_TIMEOUT_S", timeout_s)
                        raise ReportImpossible(explained(self._engine, self._logs, files, record, timeout))
                    self._keep(job.id)
            finally:
                self._remove_draft(job.id)
                self._grown(job.id)
            _log.info("report.made", job_id=job.id)
            return self._open(job.id)

    def open(self, job_id: str, *, caller: Caller = OPERATOR) -> OpenedFile:
        """The job's report as last made. Raises JobNotFound, ReportNotFound."""
        self._store.get(job_id, tenant=caller.visible_tenant)
        return self._open(job_id)

    def _open(self, job_id: str) -> OpenedFile:
        try:
            job_fd = open_job_folder(self._jobs_dir, job_id)
            try:
                return OpenedFile.of(open_file(job_fd, os.fsencode(REPORT)))
            finally:
                os.close(job_fd)
        except (FileNotFoundError, PermissionError):
            raise ReportNotFound(job_id) from None

    # ------------------------------------------------------------ its file

    def _keep(self, job_id: str) -> None:
        """Copy what was written to where no process of the job can reach it. Raises OSError."""
        fresh = f"{REPORT}.new"
        with self._folder(job_id) as job_fd, self._folder(f"{job_id}/home") as home_fd:
            try:
                draft = OpenedFile.of(open_file(home_fd, os.fsencode(REPORT)))
            except FileNotFoundError:
                raise ReportImpossible("The engine ended without having written a report.") from None
            with draft:
                if draft.size_bytes > _MOST_BYTES:
                    most = f"{_MOST_BYTES >> 20} MiB"
                    raise ReportImpossible(
                        f"The report has {draft.size_bytes >> 20} MiB, at most {most} are kept."
                    )
                self._require_room(job_fd, draft.size_bytes)
                with suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=job_fd)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(fresh, flags, 0o600, dir_fd=job_fd)
                try:
                    _copy(draft, fd)
                    os.rename(fresh, REPORT, src_dir_fd=job_fd, dst_dir_fd=job_fd)
                except OSError:
                    os.unlink(fresh, dir_fd=job_fd)
                    raise
                finally:
                    os.close(fd)

    def _require_room(self, job_fd: int, size_bytes: int) -> None:
        """The job may have written a file with holes, of which the copy is all there. Raises StorageFull."""
        about = os.fstatvfs(job_fd)
        if about.f_bavail * about.f_frsize < size_bytes + self._settings.min_free_bytes:
            raise no_room_for("the report")

    def _remove_draft(self, job_id: str) -> None:
        """Nothing that an earlier run, or the job itself, has put there is taken for a report."""
        with suppress(OSError), self._folder(f"{job_id}/home") as home_fd:
            os.unlink(REPORT, dir_fd=home_fd)

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        fd = open_job_folder(self._jobs_dir, path)
        try:
            yield fd
        finally:
            os.close(fd)


def _copy(draft: OpenedFile, to: int) -> None:
    offset = 0
    while offset < draft.size_bytes:
        sent = os.sendfile(to, draft.fd, offset, min(_PIECE_BYTES, draft.size_bytes - offset))
        if not sent:
            break
        offset += sent
