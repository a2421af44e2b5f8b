"""What a side run is asked with, and what its end means to whoever asked."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runner.errors import BackendUnavailable, ShuttingDown
from runner.log_store import end_of
from runner.ports import LaunchRequest, Lost

if TYPE_CHECKING:
    from pathlib import Path

    from runner.attempt_files import AttemptFiles, ExitRecord
    from runner.jobs import JobSpec
    from runner.log_store import LogStore
    from runner.ports import Command, Ended, Engine, Handle

_MEMORY_MB: Final = 4096
_TAIL_BYTES: Final = 65536


def request_for(
    handle: Handle, command: Command, source: Path | None, spec: JobSpec, timeout_s: float
) -> LaunchRequest:
    """One core, and the memory that a job of this spec may have, or else 4 GiB."""
    limited = spec if spec.memory_mb is not None else replace(spec, memory_mb=_MEMORY_MB)
    return replace(LaunchRequest.of(handle, command, source, limited), timeout_s=timeout_s, cores=1)


def record_of(end: Ended | Lost) -> ExitRecord:
    """How the run ended. Raises BackendUnavailable where it did not get that far, ShuttingDown."""
    if isinstance(end, Lost):
        raise BackendUnavailable(f"How the engine ended is not known: {end.detail}.")
    record = end.record
    if record.launch_error is not None:
        raise BackendUnavailable(record.launch_error)
    if record.stopped in ("interrupt", "cancel"):
        raise ShuttingDown
    return record


def explained(
    engine: Engine, logs: LogStore, files: AttemptFiles, record: ExitRecord, timeout: tuple[str, float]
) -> str:
    """Why a run that did not exit with 0 failed; `timeout` is the setting of its time, and the seconds."""
    if record.stopped == "timeout":
        setting, timeout_s = timeout
        return f"It took longer than {timeout_s:g} s ({setting}) and was stopped."
    if record.stopped == "memory" or record.oom_kills:
        return f"It was stopped because it needs more memory: it took {record.memory_peak_bytes >> 20} MiB."
    reader = engine.reader(files)
    reader.advance()
    tail = end_of(logs.open(os.path.basename(files.job_dir), files.attempt), _TAIL_BYTES)
    by_signal = record.exit_signal is not None
    ended = f"was killed by signal {record.exit_signal}" if by_signal else f"exited with {record.exit_code}"
    return engine.explain(reader.ended(), tail) or f"The engine {ended} and said nothing."
