"""Reads what a run tells of itself: `events.jsonl`, written by the job and therefore trusted in nothing."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import structlog

from runner.engines.error_text import is_verdict, last_lines, rule_failed
from runner.jobs import Progress
from runner.ports import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.attempt_files import AttemptFiles

_log = structlog.get_logger(__name__)

_CHUNK_BYTES: Final = 64 * 2**10
_LINE_BYTES: Final = 2**20
_CALL_BYTES: Final = 64 * 2**20  # as much as a well-behaved run writes in all
_MAX_JOBS: Final = 1_000_000
_MAX_FAILURES: Final = 16
_MAX_COUNT: Final = 10**9
_LOG_BYTES: Final = 8 * 2**10


@dataclass(frozen=True, slots=True)
class _Failure:
    headline: str
    details: str


def _parsed(lines: list[bytes], tell_broken: Callable[[], None]) -> Iterator[object]:
    """What each line holds, without those that hold nothing: all at once, or one by one if one is broken."""
    try:
        yield from json.loads(b"[" + b",".join(lines) + b"]")
        return
    except (ValueError, RecursionError):
        pass
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            tell_broken()


class EventsReader:
    """The RunReader of both engines. Memory is bounded by the number of the run's jobs, not by the file."""

    def __init__(self, files: AttemptFiles) -> None:
        self._path = files.events
        self._work = files.work
        self._offset = 0
        self._rest = b""
        self._is_told = False
        self._skipping = False  # inside a line that is too long
        self._total: int | None = None
        self._done = 0
        self._finished: set[int] = set()
        self._running: dict[int, str] = {}  # jobid -> its wildcards, for people
        self._failed: set[int] = set()
        self._failures: dict[int, _Failure] = {}
        self._error: str | None = None
        self._state = RunState()

    @property
    def state(self) -> RunState:
        return self._state

    def advance(self) -> bool:
        """Read what was written since the last call, at most 64 MiB; whether `state` changed."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size <= self._offset:
                return False
            self._read(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        before, self._state = self._state, self._look()
        return self._state != before

    def _read(self, fd: int) -> None:
        for _ in range(_CALL_BYTES // _CHUNK_BYTES):
            chunk = os.pread(fd, _CHUNK_BYTES, self._offset)
            if not chunk:
                return
            self._offset += len(chunk)
            *lines, rest = (self._rest + chunk).split(b"\n")
            if lines and self._skipping:
                del lines[0]
                self._skipping = False
            for event in _parsed(lines, self._tell_broken):
                self._take(event)
            self._skipping = self._skipping or len(rest) > _LINE_BYTES
            self._rest = b"" if self._skipping else rest

    def _tell_broken(self) -> None:
        """Once for each run: the file stays as it is, for whoever wants to look."""
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "events.broken_line", path=self._path, detail="Lines that hold no event are skipped."
            )

    def _take(self, event: object) -> None:
        if not isinstance(event, dict) or event.get("v") != 1:
            return
        handler = _HANDLERS.get(str(event.get("event")))
        if handler is not None:
            handler(self, event)

    # ------------------------------------------------------------ one method per event

    def _on_run_info(self, event: dict[str, Any]) -> None:
        self._set_total(event.get("total"))

    def _on_progress(self, event: dict[str, Any]) -> None:
        done = event.get("done")
        if _is_count(done):
            self._done = max(self._done, done)
        self._set_total(event.get("total"))

    def _set_total(self, total: object) -> None:
        if _is_count(total):
            self._total = total

    def _on_job_started(self, event: dict[str, Any]) -> None:
        jobids = event.get("jobids")
        for jobid in jobids if isinstance(jobids, list) else ():
            if _is_count(jobid) and len(self._running) < _MAX_JOBS:
                self._running.setdefault(jobid, "")
                self._recovered(jobid)

    def _on_job_info(self, event: dict[str, Any]) -> None:
        jobid, wildcards = event.get("jobid"), event.get("wildcards")
        if _is_count(jobid) and jobid in self._running and isinstance(wildcards, dict):
            shown = ", ".join(f"{name}={value}" for name, value in list(wildcards.items())[:8])
            self._running[jobid] = shown[:200]

    def _on_job_finished(self, event: dict[str, Any]) -> None:
        jobid = event.get("jobid")
        if _is_count(jobid) and len(self._finished) < _MAX_JOBS:
            self._running.pop(jobid, None)
            self._finished.add(jobid)
            self._recovered(jobid)

    def _recovered(self, jobid: int) -> None:
        # Snakemake's own `retries`: the rule that failed is tried again, or has succeeded now.
        self._failed.discard(jobid)
        self._failures.pop(jobid, None)

    def _on_job_error(self, event: dict[str, Any]) -> None:
        jobid, rule = event.get("jobid"), event.get("rule")
        if not _is_count(jobid) or not isinstance(rule, str) or len(self._failed) >= _MAX_JOBS:
            return
        wildcards = self._running.pop(jobid, "")
        self._failed.add(jobid)
        self._error = None  # it was about this rule
        if len(self._failures) < _MAX_FAILURES:
            self._failures[jobid] = _Failure(rule_failed(rule, wildcards), self._log_lines(event.get("log")))

    def _on_error(self, event: dict[str, Any]) -> None:
        message = event.get("message")
        if self._error is None and isinstance(message, str) and not is_verdict(message):
            self._error = last_lines(message)

    # ------------------------------------------------------------ what it comes to

    def _log_lines(self, paths: object) -> str:
        for path in paths[:_MAX_FAILURES] if isinstance(paths, list) else ():
            if isinstance(path, str) and (text := _end_of_file(self._work, path)):
                return last_lines(text)
        return ""

    def _look(self) -> RunState:
        progress = None
        if self._total is not None:
            done = max(self._done, len(self._finished))
            progress = Progress(max(self._total, done), done, len(self._running), len(self._failed))
        for failure in self._failures.values():
            return RunState(progress, "\n".join(part for part in (failure.headline, failure.details) if part))
        return RunState(progress, self._error)


_HANDLERS: Final[dict[str, Callable[[EventsReader, dict[str, Any]], None]]] = {
    "run_info": EventsReader._on_run_info,  # noqa: SLF001 - the table belongs to the class
    "progress": EventsReader._on_progress,  # noqa: SLF001
    "job_started": EventsReader._on_job_started,  # noqa: SLF001
    "job_info": EventsReader._on_job_info,  # noqa: SLF001
    "job_finished": EventsReader._on_job_finished,  # noqa: SLF001
    "job_error": EventsReader._on_job_error,  # noqa: SLF001
    "error": EventsReader._on_error,  # noqa: SLF001
}


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _end_of_file(root: str, path: str) -> str:
    """The end of a regular file below `root`; empty when it is anything else.

    The job chooses the path and may swap any part of it for a link meanwhile, so every part is opened
    relative to the one before, without following links.
    """
    parts = _parts_below(root, path)
    if not parts:
        return ""
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            kind = os.O_NONBLOCK if is_last else os.O_DIRECTORY
            try:
                inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
    except (OSError, ValueError):
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return ""
        return os.pread(fd, _LOG_BYTES, max(0, status.st_size - _LOG_BYTES)).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _parts_below(root: str, path: str) -> list[str]:
    if path.startswith("/"):
        if not path.startswith(root.rstrip("/") + "/"):
            return []
        path = path[len(root.rstrip("/")) :]
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return [] if ".." in parts else parts
