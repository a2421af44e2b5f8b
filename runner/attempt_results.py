"""What an attempt told of itself while it ran, and what is made of it at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from runner.attempt_files import AttemptFiles
from runner.outcomes import lost, outcome_of
from runner.ports import Ended, RunState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.jobs import Job, Outcome
    from runner.ports import Engine, Handle, LogStore, Lost
    from runner.sampler import Sampler

_log = structlog.get_logger(__name__)

_TAIL_BYTES = 65536


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
        sampler: Sampler,
        top_pid: Callable[[Handle], int | None],
    ) -> None:
        self._data_dir = data_dir
        self._engine = engine
        self._logs = logs
        self._sampler = sampler
        self._top_pid = top_pid

    def watch(self, handle: Handle) -> None:
        """Follow its progress and use of the machine from now on."""
        reader = self._engine.reader(AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt))
        self._sampler.add(handle, reader, lambda: self._top_pid(handle))

    def forget(self, handle: Handle) -> None:
        """It has not been started, or is none of ours any more."""
        self._sampler.finish(handle)

    def outcome(self, job: Job, handle: Handle, observed: Ended | Lost) -> Outcome:
        """How the attempt ended, with all it told until then. Never raises."""
        told, rss_bytes = self._finish(handle)
        if not isinstance(observed, Ended):
            return lost(job, observed.detail, progress=told.progress)
        record = observed.record
        explained = None
        if record.launch_error is None and record.exit_code != 0:
            explained = self._explain(handle, told)
        try:
            return outcome_of(
                job, record, explained=explained, progress=told.progress, sampled_rss_bytes=rss_bytes
            )
        except Exception as error:  # noqa: BLE001 - else the job would stay running for ever
            _log.exception("job.result_unusable", job_id=handle.job_id, attempt=handle.attempt)
            return lost(job, f"its record makes no sense: {error!r}", progress=told.progress)

    def _finish(self, handle: Handle) -> tuple[RunState, int]:
        """What the run told of itself, read to its end, and the largest memory seen."""
        finished = self._sampler.finish(handle)
        try:
            files = AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)
            reader, rss = finished if finished is not None else (self._engine.reader(files), 0)
            reader.advance()
        except Exception:  # noqa: BLE001 - written by the job: whatever it is, the result counts without it
            _log.exception("job.events_unreadable", job_id=handle.job_id, attempt=handle.attempt)
            return RunState(), 0
        return reader.state, rss

    def _explain(self, handle: Handle, told: RunState) -> str | None:
        try:
            log = self._logs.open(handle.job_id, handle.attempt)
            _, tail = log.read(max(0, log.size() - _TAIL_BYTES), _TAIL_BYTES)
            return self._engine.explain(told, tail)
        except Exception:  # noqa: BLE001 - as for events
            _log.exception("job.log_unreadable", job_id=handle.job_id, attempt=handle.attempt)
            return None
