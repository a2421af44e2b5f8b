"""A user id for each running attempt: who has which, becoming it, ending all that runs under it.

Used by the launcher, the shim and the monitor, as root: standard library only. Which ids are taken is
kept in one file of root's for the whole machine, so that no two services hand out the same one. Its slot of
16 bytes holds the job's id from before the first file is given to the user id until the last one is taken
back, and the slot's lock is held by the shim for as long as it lives. An id whose shim was killed stays taken
until that is done in its place (`hand_back`). The file is gone after a reboot, and so are all processes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import signal
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NOBODY = 65534
_NOBODYS = 2**32 - 2  # no process is this user's
_SLOT_BYTES = 16
_FREE = bytes(_SLOT_BYTES)
_LOWEST = 1000  # below are the system's own accounts
# struct flock of fcntl(2) on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi4x")


@dataclass(frozen=True, slots=True)
class UidRange:
    """User ids from `first` to `last`, both included; group ids are the same numbers."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not _LOWEST <= self.first <= self.last < 2**32 - 2 or NOBODY in self:
            raise ValueError(
                f"{self.first}-{self.last} is no range of user ids from {_LOWEST} on without {NOBODY}"
            )

    @classmethod
    def parse(cls, text: str) -> UidRange:
        """From `first-last`. Raises ValueError."""
        first, dash, last = text.partition("-")
        if not (dash and first.strip().isdecimal() and last.strip().isdecimal()):
            raise ValueError("it must be two user ids with - between them")
        return cls(int(first), int(last))

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, int) and self.first <= uid <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1


def become(uid: int, gid: int) -> None:
    """Be this user for good: no group beside `gid`, no way back. Raises OSError.

    The kernel forgets who is to die with its parent when a process changes its user: `die_with_parent`
    has to be called after this, too (prctl(2)).
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise OSError(errno.EPERM, f"user {uid} could not be become for good")


def kill_all_of(uid: int) -> None:
    """SIGKILL every process of `uid` at one stroke; nobody can fork away from it (kill(2), pid -1).

    By a child that may signal what the user may, so that nothing else can be met, and that the user may not
    signal: it could kill or stop its killer. Raises OSError when that could not be done.
    """
    if uid < _LOWEST or uid in os.getresuid():
        raise ValueError(f"not a job's user: {uid}")
    pid = os.fork()
    if pid == 0:
        try:
            _become_killer_of(uid)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # there is nobody
                os.kill(-1, signal.SIGKILL)  # noqa: TID251 - no pid: all of a user that is a job's alone
        except BaseException:  # noqa: BLE001 - a forked child must not unwind into its parent's code
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(errno.EPERM, f"the processes of user {uid} could not be killed")


def _become_killer_of(uid: int) -> None:
    """Act as the user, and be nobody's whom it may signal (kill(2): that goes by real and saved id)."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    try:
        os.setresuid(_NOBODYS, uid, 0)
    except OSError:  # the id does not exist in this user namespace
        os.setresuid(uid, uid, uid)
    try:
        os.kill(1, 0)  # noqa: TID251 - asks only
    except PermissionError:
        return
    raise OSError(errno.EPERM, "others could be met")


def processes_of(uid: int) -> list[int]:
    """Pids of all processes of the user that have not ended: a look at every process there is."""
    found = []
    mark = b"\nUid:\t%d\t" % uid
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/status", "rb") as status:
            text = status.read()
            if mark in text and b"\nState:\tZ" not in text and b"\nState:\tX" not in text:
                found.append(int(name))
    return found


def end_all_of(uid: int, *, within_s: float) -> tuple[int, int]:
    """`kill_all_of` until nobody is left: how many were met, and how many are left when time is up.

    Killed first, whoever is seen: processes that replace themselves all the time may be met by no look. Of
    those that are killed at one stroke, none has another any more.
    """
    met = processes_of(uid)
    kill_all_of(uid)
    left = processes_of(uid)
    deadline = time.monotonic() + within_s
    while left and time.monotonic() < deadline:
        time.sleep(0.002)  # noqa: TID251 - dying takes the kernel a moment, and they are no children of ours
        kill_all_of(uid)
        left = processes_of(uid)
    return len(met), len(left)


# ---------------------------------------------------------------- who has which


class UidTaken(Exception):
    """The user id is in use by a running attempt."""


@dataclass(frozen=True, slots=True)
class TakenUid:
    """A user id held by this process alone, until `close` or its end; marked as the job's until `free`."""

    uid: int
    _fd: int
    _offset: int

    def free(self) -> None:
        """Nothing of the job runs under it and no file of it is left: it may serve another."""
        os.pwrite(self._fd, _FREE, self._offset)

    def close(self) -> None:
        os.close(self._fd)


class UidTable:
    """The file that says which user ids are taken. Root's alone."""

    def __init__(self, path: str, uids: UidRange) -> None:
        self._path = path
        self._uids = uids

    def take(self, job_id: str) -> TakenUid:
        """Any free user id, for this job. Raises OSError; EAGAIN when none is free now."""
        fd = self._open()
        try:
            count = len(self._uids)
            begin = random.randrange(count)  # noqa: S311 - spreads them, nothing more
            for step in range(count):
                uid = self._uids.first + (begin + step) % count
                offset = self._offset(uid)
                if not _lock(fd, offset):
                    continue
                if os.pread(fd, _SLOT_BYTES, offset) in (b"", _FREE):
                    os.pwrite(fd, _slot(job_id), offset)
                    return TakenUid(uid, fd, offset)
                _unlock(fd, offset)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        raise OSError(errno.EAGAIN, "no user id is free for the job")

    def retake(self, uid: int, *, within_s: float = 0.0) -> TakenUid:
        """One that a killed shim has left, as soon as it has. Raises UidTaken, OSError."""
        if uid not in self._uids:
            raise ValueError(f"not one of the jobs' user ids: {uid}")
        fd = self._open()
        try:
            deadline = time.monotonic() + within_s
            while not _lock(fd, self._offset(uid)):
                if time.monotonic() >= deadline:
                    raise UidTaken(f"user {uid} is in use by a running attempt")  # noqa: TRY301
                time.sleep(0.01)  # noqa: TID251 - a process that is being killed has a moment to live
        except BaseException:
            os.close(fd)
            raise
        return TakenUid(uid, fd, self._offset(uid))

    def left_by(self, job_id: str) -> list[int]:
        """The user ids that are marked as this job's. Raises OSError."""
        wanted = _slot(job_id)
        fd = self._open()
        try:
            return [uid for uid, slot in self._slots(fd) if slot == wanted]
        finally:
            os.close(fd)

    def _slots(self, fd: int) -> Iterator[tuple[int, bytes]]:
        content = os.pread(fd, len(self._uids) * _SLOT_BYTES, self._offset(self._uids.first))
        for number in range(len(content) // _SLOT_BYTES):
            yield self._uids.first + number, content[number * _SLOT_BYTES : (number + 1) * _SLOT_BYTES]

    def _offset(self, uid: int) -> int:
        # By the number itself: services with different ranges share the file. It has holes, and takes little.
        return uid * _SLOT_BYTES

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        if os.fstat(fd).st_uid != 0:
            os.close(fd)
            raise OSError(errno.EPERM, "the table of user ids is not root's", self._path)
        return fd


def table_path() -> str:
    """Where the table is on this machine: where only root writes, empty after a reboot. Raises OSError."""
    trouble: OSError | None = None
    for folder, name in (("/run/snakeline", "job-uids"), ("/dev/shm", "snakeline-job-uids")):  # noqa: S108
        try:
            if folder.startswith("/run/"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                if os.lstat(folder).st_uid != 0:
                    raise OSError(errno.EPERM, "not root's", folder)  # noqa: TRY301
            path = os.path.join(folder, name)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            trouble = error
        else:
            return path
    raise trouble or OSError(errno.ENOENT, "no place")


def _slot(job_id: str) -> bytes:
    if not JOB_ID.fullmatch(job_id):
        raise ValueError("not the id of a job")
    return bytes.fromhex(job_id.replace("-", ""))


def _lock(fd: int, offset: int) -> bool:
    """Lock one slot for this open file; false when another has it (F_OFD_SETLK, fcntl(2))."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, _SLOT_BYTES, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(fd: int, offset: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, _SLOT_BYTES, 0))
