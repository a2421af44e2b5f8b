"""What an attempt told of itself while it ran, and what is made of it at its end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles
from runner.log_store import end_of
from runner.outcomes import lost, outcome_of
from runner.ports import Ended, RunState
from runner.run_follower import PIECE_BYTES, RunFollower
from runner.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runner.attempt_files import ExitRecord
    from runner.jobs import Job, Outcome
    from runner.log_store import LogStore
    from runner.ports import Engine, Handle, Lost, RunReader, TaskReader
    from runner.samples import Sample

_log = structlog.get_logger(__name__)

_TAIL_BYTES = 65536
_AT_ONCE_BYTES = 2**20


class AttemptResults:
    """Follows running attempts and turns their ends into outcomes. It belongs to the supervisor's thread.

    Events and logs are written by the job: whatever is in them, an end becomes an outcome.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        engine: Engine,
        logs: LogStore,
        report: Callable[[Sequence[Sample]], None],
        wake: Callable[[], None],
        top_pid: Callable[[Handle], int | None],
    ) -> None:
        """`report` is called on other threads with what is new, `wake` when `read_out` has something."""
        self._data_dir = data_dir
        self._engine = engine
        self._logs = logs
        self._wake = wake
        self._sampler = Sampler(data_dir, report)
        self._follower = RunFollower(report)
        self._top_pid = top_pid
        self._readers: dict[Handle, RunReader] = {}  # of ended attempts, read to their ends
        self._unread: dict[Handle, Ended | Lost] = {}
        self._read_out: deque[Handle] = deque()

    def start(self) -> None:
        self._sampler.start()
        self._follower.start()

    def close(self) -> None:
        self._sampler.close()
        self._follower.close()

    def watch(self, handle: Handle) -> None:
        """Follow its progress and use of the machine from now on."""
        files = self._files(handle)
        self._follower.add(handle, files, self._engine.reader(files))
        self._sampler.add(handle, lambda: self._top_pid(handle))

    def forget(self, handle: Handle) -> None:
        """It has not been started, or is none of ours any more."""
        self._follower.finish(handle)
        self._sampler.finish(handle)
        self._readers.pop(handle, None)

    def read_out(self) -> list[tuple[Handle, Ended | Lost]]:
        """What was observed of the attempts whose `outcome` can be asked for again."""
        found = []
        while self._read_out:
            handle = self._read_out.popleft()
            if (observed := self._unread.pop(handle, None)) is not None:
                found.append((handle, observed))
        return found

    def outcome(self, job: Job, handle: Handle, observed: Ended | Lost) -> Outcome | None:
        """How the attempt ended, with all it told until then. Never raises.

        None while much of that is still to be read: ask again once it is in `read_out`.
        """
        told = self._told(handle)
        if told is None:
            self._unread[handle] = observed
            return None
        rss_bytes = self._sampler.finish(handle)
        if not isinstance(observed, Ended):
            return lost(job, observed.detail, progress=told.progress)
        record = observed.record
        explained = None if record.launch_error is not None else self._explain(job, handle, record, told)
        try:
            return outcome_of(
                job,
                record,
                explained=explained,
                progress=told.progress,
                sampled_rss_bytes=rss_bytes,
                failed_at=told.failed_at,
            )
        except Exception as error:  # noqa: BLE001 - else the job would stay running for ever
            _log.exception("job.result_unusable", job_id=handle.job_id, attempt=handle.attempt)
            return lost(job, f"its record makes no sense: {error!r}", progress=told.progress)

    def _told(self, handle: Handle) -> RunState | None:
        """What the run told of itself; None while that is being read."""
        try:
            reader = self._readers.pop(handle, None)
            if reader is None:
                files = self._files(handle)
                reader = self._follower.finish(handle) or self._engine.reader(files)
                if reader.advance(_AT_ONCE_BYTES):
                    self._follower.read_out(handle, files, reader, lambda read: self._has_read(handle, read))
                    return None
            self._keep_tasks(handle)
            return reader.ended()
        except Exception:  # noqa: BLE001 - written by the job: whatever it is, the result counts without it
            _log.exception("job.events_unreadable", job_id=handle.job_id, attempt=handle.attempt)
            return RunState()

    def _has_read(self, handle: Handle, reader: RunReader) -> None:
        self._readers[handle] = reader
        self._read_out.append(handle)
        self._wake()

    def _keep_tasks(self, handle: Handle) -> None:
        reader = self._engine.tasks(self._files(handle))
        if reader.is_long():
            self._follower.do_later(lambda: _keep_on(reader))

    def _explain(self, job: Job, handle: Handle, record: ExitRecord, told: RunState) -> str | None:
        try:
            if record.exit_code != 0:
                return self._engine.explain(told, self._log_tail(handle))
            if told.progress is None or told.progress.done < told.progress.total:
                return self._engine.remark(job.spec, told, self._log_tail(handle))
        except Exception:  # noqa: BLE001 - as for events
            _log.exception("job.log_unreadable", job_id=handle.job_id, attempt=handle.attempt)
        return None

    def _log_tail(self, handle: Handle) -> bytes:
        return end_of(self._logs.open(handle.job_id, handle.attempt), _TAIL_BYTES)

    def _files(self, handle: Handle) -> AttemptFiles:
        return AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)


def _keep_on(reader: TaskReader) -> bool:
    """Read a piece more of an ended attempt, and leave what was found once that was all."""
    if reader.advance(PIECE_BYTES):
        return True
    reader.keep()
    return False
