"""What the launcher and its shims may do as root, where every attempt runs under a user id of its own.

Used in the engine's interpreter: standard library only. A shim works as the service's user, and is root for
moments only: its saved user id is 0. What it may do then is fixed here and by the launcher's setup, which
the service cannot choose.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.isolation import ownership, shared_memory
from runner.isolation.uids import JOB_ID, UidRange, UidTable, UidTaken, end_all_of, kill_all_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.attempt_files import AttemptFiles
    from runner.isolation.processes import Group
    from runner.isolation.uids import TakenUid

PLACES = ("home", "work", "tmp")
"""What belongs to the attempt's user while it runs, in the job's directory."""
_ATTEMPT = re.compile(r"(?P<job>[^/]+)/attempts/[1-9][0-9]{0,8}")
_END_WITHIN_S = 5.0
_SEARCHABLE, _CLOSED = 0o710, 0o700
_GROUP_READS, _GROUP_WRITES = 0o640, 0o660
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class JobUsers:
    """Who the service is, and which user ids its jobs get; `jobs_dir` is `<data_dir>/jobs`."""

    service_uid: int
    service_gid: int
    uids: UidRange
    table: str
    jobs_dir: str

    def to_json(self) -> dict[str, Any]:
        return {
            "service": [self.service_uid, self.service_gid],
            "uids": [self.uids.first, self.uids.last],
            "table": self.table,
            "jobs_dir": self.jobs_dir,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> JobUsers:
        uid, gid = raw["service"]
        return cls(
            int(uid), int(gid), UidRange(*map(int, raw["uids"])), str(raw["table"]), str(raw["jobs_dir"])
        )

    def is_attempt(self, directory: str) -> bool:
        """Whether this is how the directory of an attempt of ours is called."""
        if not directory.startswith(self.jobs_dir + "/"):
            return False
        found = _ATTEMPT.fullmatch(directory, len(self.jobs_dir) + 1)
        return found is not None and JOB_ID.fullmatch(found["job"]) is not None

    def be_signalled_by_service(self) -> None:
        """Stay root, and let the service's user send signals to us and, at once, to our forks (kill(2))."""
        os.setresuid(self.service_uid, 0, 0)

    def work_as_service(self) -> None:
        """Be the service's user from here on, root only within `as_root`."""
        os.seteuid(0)
        os.setgroups([])
        os.setresgid(self.service_gid, self.service_gid, 0)
        os.setresuid(self.service_uid, self.service_uid, 0)

    @contextlib.contextmanager
    def as_root(self) -> Iterator[None]:
        os.seteuid(0)
        try:
            yield
        finally:
            os.seteuid(self.service_uid)

    # ------------------------------------------------------------ in the shim

    def take_user(self, files: AttemptFiles) -> JobUser:
        """A user id for this attempt; nothing has been given to it yet. Raises OSError, UidTaken.

        What an earlier attempt's user still has is taken back first.
        """
        job_id = os.path.basename(files.job_dir)
        with self.as_root():
            if self._owner(job_id):
                self.hand_back(job_id, within_s=_END_WITHIN_S)
            taken = UidTable(self.table, self.uids).take(job_id)
        return JobUser(self, files, taken)

    # ------------------------------------------------------------ in the monitor

    def hand_back(self, job_id: str, *, within_s: float) -> int:
        """End what a killed shim left running and take its files back; how many processes there were.

        Called as root, for a job of which no attempt is held by a shim. Raises UidTaken when one is after
        all, OSError when something could not be ended or taken back: its user id then stays taken.
        """
        if not JOB_ID.fullmatch(job_id):
            raise ValueError("not the id of a job")
        table = UidTable(self.table, self.uids)
        killed = 0
        trouble: Exception | None = None
        for uid in dict.fromkeys([*table.left_by(job_id), *self._owner(job_id)]):
            try:
                with contextlib.closing(table.retake(uid, within_s=within_s)) as taken:
                    met, left = end_all_of(uid, within_s=within_s)
                    killed += met
                    self.take_back_files(job_id, uid)
                    shared_memory.clear(uid)
                    _require_none_left(uid, left)
                    taken.free()
            except (OSError, UidTaken) as error:
                trouble = error  # another attempt's user may be the one that is meant
        if trouble is not None:
            raise trouble
        return killed

    def _owner(self, job_id: str) -> list[int]:
        """Whose the job's files are now, if a job's user's: the table is empty after a reboot."""
        try:
            about = os.lstat(f"{self.jobs_dir}/{job_id}/home")
        except OSError:
            return []
        return [about.st_uid] if about.st_uid in self.uids else []

    def take_back_files(self, job_id: str, uid: int) -> None:
        """As root; nobody else can reach them any more. Raises OSError."""
        with self._job_folder(job_id) as job_fd:
            for name in reversed(PLACES):
                ownership.give(
                    job_fd, name, owners={uid}, uid=self.service_uid, gid=self.service_gid, links=True
                )
            if os.fstat(job_fd).st_gid == uid:  # or it is that of a later attempt's user
                self._open_to(self.service_gid, job_fd, _CLOSED)

    @contextlib.contextmanager
    def _job_folder(self, job_id: str) -> Iterator[int]:
        """The job's directory itself, proven to be the service's. Raises OSError."""
        jobs_fd = os.open(self.jobs_dir, _FOLDER)
        try:
            folder_fd = os.open(job_id, _FOLDER, dir_fd=jobs_fd)
        finally:
            os.close(jobs_fd)
        try:
            if os.fstat(folder_fd).st_uid != self.service_uid:
                raise OSError(errno.EPERM, "the job's directory is not the service's")
            yield folder_fd
        finally:
            os.close(folder_fd)

    @contextlib.contextmanager
    def work_folder(self, job_id: str) -> Iterator[int]:
        """The job's working directory. Raises OSError, ValueError."""
        if not JOB_ID.fullmatch(job_id):
            raise ValueError("not the id of a job")
        with self._job_folder(job_id) as job_fd:
            folder_fd = os.open("work", _FOLDER, dir_fd=job_fd)
        try:
            yield folder_fd
        finally:
            os.close(folder_fd)

    def is_of_jobs(self, uid: int) -> bool:
        """Whether a file of this user may be shown as a job's."""
        return uid == self.service_uid or uid in self.uids

    # ------------------------------------------------------------ in the shim, as root

    def give_files(self, files: AttemptFiles, uid: int) -> None:
        """Its places to the job's user, and to its group what the job reads or writes of the attempt's files.

        As root. It may search the directories above, other jobs' users may not. Raises OSError.
        """
        job_id, attempts = os.path.basename(files.job_dir), os.path.dirname(files.directory)
        with self._job_folder(job_id) as job_fd:
            self._open_to(uid, job_fd)
            # The home first: whoever finds it to be a job's user's knows that the rest may be.
            for name in PLACES:
                ownership.give(job_fd, name, owners={self.service_uid}, uid=uid, gid=uid, links=False)
            attempts_fd = os.open(os.path.basename(attempts), _FOLDER, dir_fd=job_fd)
            try:
                self._open_to(uid, attempts_fd)
                attempt_fd = os.open(str(files.attempt), _FOLDER, dir_fd=attempts_fd)
            finally:
                os.close(attempts_fd)
            try:
                self._open_to(uid, attempt_fd)
                self._share(attempt_fd, os.path.basename(files.events), uid, _GROUP_WRITES)
                self._share(attempt_fd, os.path.basename(files.config), uid, _GROUP_READS)
            finally:
                os.close(attempt_fd)

    def _open_to(self, gid: int, folder_fd: int, mode: int = _SEARCHABLE) -> None:
        ownership.change_owner(folder_fd, self.service_uid, gid)
        os.fchmod(folder_fd, mode)

    def _share(self, folder_fd: int, name: str, gid: int, mode: int) -> None:
        """One file of the service's with the job's group."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=folder_fd)
        except FileNotFoundError:
            return
        try:
            about = os.fstat(fd)
            is_plain = stat.S_ISREG(about.st_mode) and about.st_nlink == 1
            if not is_plain or about.st_uid != self.service_uid:
                raise OSError(errno.EPERM, "not a file of the service's", name)
            ownership.change_owner(fd, self.service_uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)


def _require_none_left(uid: int, left: int) -> None:
    if left:
        raise OSError(errno.EBUSY, f"{left} processes of user {uid} could not be ended")


@dataclass(slots=True)
class JobUser:
    """The user of one attempt, in its shim."""

    users: JobUsers
    files: AttemptFiles
    taken: TakenUid

    @property
    def uid(self) -> int:
        return self.taken.uid

    def give_files(self) -> None:
        """Raises OSError."""
        with self.users.as_root():
            self.users.give_files(self.files, self.uid)

    def as_root(self) -> contextlib.AbstractContextManager[None]:
        return self.users.as_root()

    def kill_all(self) -> None:
        """As root: SIGKILL whatever runs under it, at one stroke. Nothing if no process can be made."""
        with contextlib.suppress(OSError):
            kill_all_of(self.uid)

    def hand_back(self, *, survivors: int) -> None:
        """Take the files back; when nothing of the job is left the user id may serve another.

        With survivors, or files that could not be taken back, it stays taken until the machine is restarted.
        """
        with self.users.as_root(), contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                self.users.take_back_files(os.path.basename(self.files.job_dir), self.uid)
            if not survivors:
                shared_memory.clear(self.uid)
                self.taken.free()


class JobMembers:
    """All processes of a job: its control group's where it has one, else its user's. As root."""

    def __init__(self, user: JobUser, group: Group | None = None) -> None:
        self._user = user
        self._group = group

    def kill(self) -> None:
        if self._group is not None:
            self._group.kill()
        else:
            self._user.kill_all()

    def processes(self) -> set[int]:
        """Those that are known without a search; whoever else there is, is a descendant of the shim."""
        return self._group.processes() if self._group is not None else set()
