"""The lines of a run's events file, `events.jsonl`: written by the job, and therefore trusted in nothing."""

from __future__ import annotations

import json
import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard

import structlog

from runner.job_files import open_in_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.attempt_files import AttemptFiles

_log = structlog.get_logger(__name__)

VERSIONS: Final = frozenset({1, 2})
MAX_COUNT: Final = 10**9
MAX_NAME: Final = 200  # characters of a rule or a group
_FILE_BYTES: Final = 128 * 2**20  # twice as much as a run of ours writes
_MAX_LINES: Final = 2_000_000
_MAX_BROKEN: Final = 1_000  # a run of ours leaves one that is torn
_CHUNK_BYTES: Final = 64 * 2**10
_LINE_BYTES: Final = 2**20
_LENGTH_BITS: Final = 21
LATEST_S: Final = 2.0**37


class Taker(Protocol):
    def __call__(self, event: dict[str, Any], place: int, /) -> None:
        """Take one event; `place` is where its line is, for `EventLines.at`."""


class EventLines:
    """Reads each line once, as it comes, and single ones again. Lines of no known form are passed over.

    Holds no descriptor, and at most one line that is not whole yet.
    """

    def __init__(self, files: AttemptFiles) -> None:
        self._files = files
        self._offset = 0
        self._rest = b""
        self._skipping = False  # inside a line that is too long
        self._left = _MAX_LINES
        self._left_broken = _MAX_BROKEN

    @property
    def offset(self) -> int:
        """How far the file has been read."""
        return self._offset

    def start_at(self, offset: int) -> None:
        """Pass over what was read before, up to the end of a line."""
        self._offset, self._rest, self._skipping = offset, b"", False

    def read(self, take: Taker, limit_bytes: int) -> bool:
        """Take what was written since the last call, `limit_bytes` of it at most; whether there is more.

        A file that can't be read has nothing new.
        """
        with self.opened() as fd:
            if fd is None:
                return False
            try:
                size = min(os.fstat(fd).st_size, _FILE_BYTES)
                for _ in range(max(1, limit_bytes // _CHUNK_BYTES)):
                    if self._offset >= size or self._is_given_up:
                        return False
                    self._read_chunk(fd, take)
            except OSError:
                return False
            return self._offset < size and not self._is_given_up

    @property
    def _is_given_up(self) -> bool:
        """Whether there are so many lines, or so many that are no events, that no run of ours told them."""
        return self._left <= 0 or self._left_broken <= 0

    def _read_chunk(self, fd: int, take: Taker) -> None:
        chunk = os.pread(fd, _CHUNK_BYTES, self._offset)
        start = self._offset - len(self._rest)
        self._offset += len(chunk)
        *lines, rest = (self._rest + chunk).split(b"\n")
        if lines and self._skipping:
            start += len(lines.pop(0)) + 1
            self._skipping = False
        self._left -= len(lines)
        for event, line in zip(self._parsed(lines), lines, strict=True):
            if _is_event(event):
                take(event, start << _LENGTH_BITS | len(line))
            elif event is not None:
                self._pass_over()
            start += len(line) + 1
        self._skipping = self._skipping or len(rest) > _LINE_BYTES
        self._rest = b"" if self._skipping else rest

    def _parsed(self, lines: list[bytes]) -> Sequence[object]:
        """What each line holds, None if nothing: read all at once, or one by one where one is broken."""
        try:
            found = json.loads(b"[" + b",".join(lines) + b"]")
            if len(found) == len(lines):
                return found  # type: ignore[no-any-return]
        except (ValueError, RecursionError):
            pass
        return [self._parsed_alone(line) for line in lines]

    def _parsed_alone(self, line: bytes) -> object:
        if self._left_broken <= 0:
            return None
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            self._pass_over()
            return None

    def _pass_over(self) -> None:
        """Said once for each run: the file stays as it is, for whoever wants to look."""
        if self._left_broken == _MAX_BROKEN:
            _log.warning(
                "events.broken_line",
                job_id=os.path.basename(self._files.job_dir),
                attempt=self._files.attempt,
                path=self._files.events,
                detail="Lines that hold no event are skipped.",
            )
        self._left_broken -= 1

    # ------------------------------------------------------------ single lines

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A descriptor of the file, for `at`; None when it can't be read."""
        try:
            fd = open_in_job(self._files, self._files.events)
        except OSError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def size_of(place: int) -> int:
        return place & ((1 << _LENGTH_BITS) - 1)

    @staticmethod
    def at(fd: int | None, place: int) -> dict[str, Any]:
        """The event at that place; empty when there is none any more, since the job may rewrite its file."""
        if fd is None or not place:
            return {}
        try:
            found = json.loads(os.pread(fd, EventLines.size_of(place), place >> _LENGTH_BITS))
        except (OSError, ValueError, OverflowError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _is_event(found: object) -> TypeGuard[dict[str, Any]]:
    """Whether it has a name, and is of a form that is known."""
    if not isinstance(found, dict) or not isinstance(found.get("event"), str):
        return False
    version = found.get("v")
    return type(version) is int and version in VERSIONS


def is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_COUNT


def items_of(event: dict[str, Any], field: str) -> list[Any]:
    """The list in that field; empty where there is none."""
    value = event.get(field)
    return value if isinstance(value, list) else []


def task_numbers(event: dict[str, Any]) -> list[int]:
    """The tasks that an event is about in common."""
    return [number for number in items_of(event, "jobids") if is_count(number)]


def moment_of(event: dict[str, Any]) -> float:
    """When it happened, in seconds since the epoch; NaN when it doesn't say."""
    told = event.get("t")
    return float(told) if isinstance(told, (int, float)) and 0 < told < LATEST_S else math.nan
