"""The files of one attempt: where they are and what is in them.

The filesystem is the protocol between the service and its jobs: lock held means running, `exit.json` is
the result, `started` without either means lost, and none of the three means safe to launch. This module
is shared with the shim, which runs in the engine's own interpreter: standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
REPORT = "report.html"
SEGMENTS_KEPT = 8  # the first and the seven newest
_MIN_SEGMENT_BYTES = 8 * 2**10
# struct flock of fcntl(2) on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_NO_LOCK = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO})
_FLOCK = struct.Struct("@hhqqi4x")


class InvalidRecord(ValueError):
    """A file of the attempt does not hold what it should: foreign, truncated or damaged."""


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """Paths of one attempt below `<data_dir>/jobs/<id>/`."""

    job_dir: str
    attempt: int

    @classmethod
    def of(cls, data_dir: str | os.PathLike[str], job_id: str, attempt: int) -> AttemptFiles:
        return cls(f"{os.fspath(data_dir)}/jobs/{job_id}", attempt)

    @property
    def work(self) -> str:
        return f"{self.job_dir}/work"

    @property
    def attachments(self) -> str:
        """What came with the job for its `work/input`, until it is moved there."""
        return f"{self.job_dir}/attachments"

    @property
    def workflow(self) -> str:
        """The workflow, where it came with the job."""
        return f"{self.job_dir}/workflow"

    @property
    def home(self) -> str:
        return f"{self.job_dir}/home"

    @property
    def tmp(self) -> str:
        return f"{self.job_dir}/tmp"  # noqa: S108 - the job's own

    @property
    def directory(self) -> str:
        return f"{self.job_dir}/attempts/{self.attempt}"

    @property
    def spec(self) -> str:
        return f"{self.directory}/spec.json"

    @property
    def config(self) -> str:
        return f"{self.directory}/config.json"

    @property
    def lock(self) -> str:
        return f"{self.directory}/lock"

    @property
    def started(self) -> str:
        return f"{self.directory}/started"

    @property
    def exit(self) -> str:
        return f"{self.directory}/exit.json"

    @property
    def crash(self) -> str:
        return f"{self.directory}/crash.txt"

    @property
    def events(self) -> str:
        return f"{self.directory}/events.jsonl"

    @property
    def usage(self) -> str:
        """What it used, look by look: see runner/usage_samples.py."""
        return f"{self.directory}/usage.samples"

    @property
    def report_draft(self) -> str:
        """Where a run that reports on the job writes; the job may have put anything there."""
        return f"{self.home}/{REPORT}"

    def log_segment(self, index: int) -> str:
        return f"{self.directory}/log.{index}"


def segment_bytes(limit_bytes: int) -> int:
    """The size of a log segment, so that `SEGMENTS_KEPT` of them stay within `limit_bytes`."""
    return max(_MIN_SEGMENT_BYTES, limit_bytes // SEGMENTS_KEPT)


def _dump(record: Any) -> bytes:
    # Not dataclasses.asdict: it copies deeply, at a price that every job would pay twice.
    return json.dumps({"format": FORMAT, **{n: getattr(record, n) for n in record.__slots__}}).encode()


def _known(cls: type[Any], raw: object, what: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise InvalidRecord(f"{what} is not in format {FORMAT}")
    return {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}


@dataclass(frozen=True, slots=True)
class ShimSpec:
    """What the shim needs to run one attempt: `spec.json`.

    `argv` and each of `prepare` are complete argument lists; the `prepare` commands run first, in
    order, and one that fails ends the attempt with its exit code. `source`, when set, is copied to the
    working directory if that does not exist yet. `warm_entry` is `module:function` to call with
    `argv[1:]` in a fork instead of executing `argv`; what it returns or raises ends the process as
    `sys.exit` would. `confinement` is what it may take: see `Limits` in runner/isolation/confinement.py.
    """

    job_id: str
    attempt: int
    argv: list[str]
    environment: dict[str, str]
    work_dir: str
    prepare: list[list[str]]
    source: str | None
    warm_entry: str | None
    timeout_s: float | None
    stop_grace_s: float
    log_segment_bytes: int
    title: str
    confinement: dict[str, Any] = field(default_factory=dict)

    @property
    def commands(self) -> list[list[str]]:
        return [*self.prepare, self.argv]

    def dump(self) -> bytes:
        return _dump(self)

    @classmethod
    def load(cls, data: bytes) -> ShimSpec:
        """Raises InvalidRecord."""
        try:
            return cls(**_known(cls, json.loads(data), "spec.json"))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRecord(f"spec.json cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How the attempt ended: `exit.json`.

    Exactly one of `exit_code`, `exit_signal` and `launch_error` is set, except when the attempt was
    stopped before the engine started: then all three are null. `stopped` is `cancel`, `timeout`,
    `memory` (it took more than its limit) or `interrupt` (the service ends and wants the job to resume
    later) when the shim had sent signals before the engine ended, else null.

    `oom_kills` are the job's own processes that the kernel killed for lack of memory, and
    `memory_peak_bytes` the most that all of them took together, 0 where that cannot be known.
    `machine_oom_kills` are those of the whole machine meanwhile, told only where the job's own are not
    counted. Times are seconds since the epoch;
    `ended_at` is `started_at` plus the duration by a clock that nobody sets, and that goes on while the
    machine sleeps.
    """

    exit_code: int | None
    exit_signal: int | None
    launch_error: str | None
    stopped: str | None
    started_at: float
    ended_at: float
    cpu_s: float
    max_rss_bytes: int
    read_bytes: int
    written_bytes: int
    log_bytes: int
    survivors: int = 0
    oom_kills: int = 0
    memory_peak_bytes: int = 0
    machine_oom_kills: int = 0

    def dump(self) -> bytes:
        return _dump(self) + b"\n"

    @classmethod
    def load(cls, data: bytes) -> ExitRecord:
        """Raises InvalidRecord."""
        try:
            record = cls(**_known(cls, json.loads(data), "exit.json"))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRecord(f"exit.json cannot be read: {error}") from error
        record._check()
        return record

    def _check(self) -> None:
        # Whatever JSON held: the annotations promise nothing here.
        code: object = self.exit_code
        signal: object = self.exit_signal
        trouble: object = self.launch_error
        set_fields = [v for v in (code, signal, trouble) if v is not None]
        stopped_before_start = not set_fields and self.stopped is not None
        if len(set_fields) != 1 and not stopped_before_start:
            raise InvalidRecord("exit.json must hold exactly one of exit_code, exit_signal, launch_error")
        if code is not None and not (type(code) is int and 0 <= code <= 255):
            raise InvalidRecord(f"exit.json holds an impossible exit code: {code!r}")
        if signal is not None and not (type(signal) is int and 1 <= signal <= 64):
            raise InvalidRecord(f"exit.json holds an impossible signal: {signal!r}")
        if self.stopped not in (None, "cancel", "timeout", "memory", "interrupt"):
            raise InvalidRecord(f"exit.json holds an unknown stop: {self.stopped!r}")
        if trouble is not None and not isinstance(trouble, str):
            raise InvalidRecord("exit.json holds a launch error that is not text")
        numbers = (self.started_at, self.ended_at, self.cpu_s)
        counts = (self.max_rss_bytes, self.read_bytes, self.written_bytes, self.log_bytes, self.survivors)
        of_memory = (self.oom_kills, self.memory_peak_bytes, self.machine_oom_kills)
        whole = all(type(n) is int and 0 <= n < 2**63 for n in (*counts, *of_memory))
        if not whole or not all(type(n) in (int, float) and 0 <= n < 2**37 for n in numbers):
            raise InvalidRecord("exit.json holds a time or a size that cannot be one")


def try_lock(path: str) -> int | None:
    """Take the attempt's lock for this process: a descriptor to keep, or None when another holds it.

    A POSIX record lock: the kernel frees it when the process ends, a child does not inherit it, and
    closing *any* descriptor of the file drops it, so the file must be opened once (fcntl(2)).
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def lock_holder(path: str) -> int | None:
    """The pid of the process that holds the lock, told by the kernel; None when it is free.

    Only good together with a pidfd: open the pidfd, ask again, and the same answer proves that the
    descriptor refers to the holder.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_LOCK:  # gone, or something that nobody can have locked
            return None
        raise
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else pid
