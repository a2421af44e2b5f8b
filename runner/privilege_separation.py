"""A service that was started as root gives that up for good, and its jobs get user ids of their own.

`find_users` looks whether that can be had, by trying; `separate` does it: the data directory becomes that of
the service's user, one small process stays root (runner/isolation/monitor.py), this one never can be again.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import resource
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runner.attempt_files import lock_holder
from runner.data_owner import hand_over, is_handed_over
from runner.isolation import probe
from runner.isolation.job_users import JobUsers
from runner.isolation.syscalls import prctl
from runner.isolation.uids import UidRange, become, table_path
from runner.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.isolation.confinement import Measures
    from runner.isolation.probe import IsolationLevel
    from runner.ports import WarmSpec
    from runner.settings import RunnerSettings

ACCOUNT: Final = "snakeline"
_FALL_BACK: Final = UidRange(50_000, 59_999)
"""For user namespaces, which mostly have no more than 65,536 ids."""
_HERE: Final = os.path.dirname(os.path.abspath(__file__))
_PROGRAM: Final = os.path.join(_HERE, "isolation", "monitor.py")
_LAUNCHER: Final = os.path.join(_HERE, "backends", "launcher.py")
_TRIAL_WITHIN_S: Final = 30.0
_READY_WITHIN_S: Final = 30.0
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_DUMPABLE = 38, 24, 4
_CAPABILITIES = 64
_POWERS: Final = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
}
# What a user must be able to do: search the first folders, and list the others.
_TRIAL: Final = """
import json, os, sys
search, read = json.loads(sys.argv[1])
try:
    for path in search:
        os.stat(os.path.join(path, "."))
    for path in read:
        os.listdir(path)
    for path in sys.path:
        if os.path.lexists(path) and os.path.isdir(path):
            os.listdir(path)
except OSError as error:
    print(json.dumps([error.filename, error.strerror]))
else:
    print(json.dumps(None))
"""


class NotSeparable(Exception):
    """Jobs can't have user ids of their own here: one line that says why and what to do."""


class UnusableUser(NotSeparable):
    """SNAKELINE_USER names nobody the service can be: whoever has set it does not want it to stay root."""


# ---------------------------------------------------------------- looking


def find_users(settings: RunnerSettings, launchers: Sequence[WarmSpec]) -> JobUsers:
    """Who the service and its jobs would be. Changes nothing but the table of taken ids. Raises NotSeparable.

    `launchers` are the interpreters that run engines.
    """
    if os.geteuid() != 0:
        raise NotSeparable("the service was not started as root")
    _require_powers()
    uids = _mapped(settings.job_uids)
    uid, gid, uids = _service_user(settings.user, uids)
    _require_roots_alone([_PROGRAM, sys.executable])
    for spec in launchers:
        _require_roots_alone([spec.python, *spec.packages.values()])
    _require_firm_place(settings.data_dir, uid, gid)
    data_dir = os.path.realpath(settings.data_dir)
    above = _first_that_exists(os.path.dirname(data_dir))
    _require_store_inside(settings.database_url, data_dir)
    for spec in launchers:
        flags = ["-I", "-S"] if spec.isolated else ["-I"]
        _try(uids.first, uids.first, spec.python, flags, search=[above], read=list(spec.packages.values()))
    folders = [_HERE, os.path.dirname(_HERE), os.fspath(settings.workflows_dir)]
    _try(uid, gid, sys.executable, ["-I"], search=[above], read=folders)
    try:
        table = table_path()
    except OSError as error:
        raise NotSeparable(f"there is no place to note the user ids in use: {error}") from error
    require_no_job_of_roots(data_dir, uid)
    return JobUsers(uid, gid, uids, table, os.path.join(data_dir, "jobs"))


def _require_powers() -> None:
    """Root may have been left without some of its powers (capabilities(7)). Raises NotSeparable."""
    with open("/proc/self/status", encoding="ascii") as lines:
        effective = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
    missing = [name for name, number in _POWERS.items() if not effective >> number & 1]
    if missing:
        raise NotSeparable(f"root has not all it needs here, but lacks {', '.join(missing)}")


def _mapped(wanted: UidRange) -> UidRange:
    """The wanted ids where this user namespace has them, else some that it has. Raises NotSeparable."""
    for uids in (wanted, _FALL_BACK):
        if all(_has(f"/proc/self/{name}", uids) for name in ("uid_map", "gid_map")):
            return uids
    raise NotSeparable(
        f"this user namespace has neither the ids {wanted.first}-{wanted.last} "
        f"nor {_FALL_BACK.first}-{_FALL_BACK.last}: set SNAKELINE_JOB_UIDS"
    )


def _has(path: str, uids: UidRange) -> bool:
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                first, _, count = map(int, line.split())
                if first <= uids.first and uids.last < first + count:
                    return True
    except OSError:
        return True  # no user namespaces in this kernel
    return False


def _service_user(named: str | None, uids: UidRange) -> tuple[int, int, UidRange]:
    """The service's user and group, and the ids that are left to jobs. Raises NotSeparable."""
    if named is None:
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(ACCOUNT)
            if account.pw_uid != 0:
                return account.pw_uid, account.pw_gid, uids
        return uids.first, uids.first, UidRange(uids.first + 1, uids.last)
    user, _, group = named.partition(":")
    try:
        uid, gid = _account(user)
        if group:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UnusableUser(f"SNAKELINE_USER={named} is no account here") from None
    if uid == 0 or uid in uids:
        raise UnusableUser(f"SNAKELINE_USER={named} must be neither root nor one of the jobs' users")
    return uid, gid, uids


def _account(user: str) -> tuple[int, int]:
    """Raises KeyError."""
    if user.isdecimal():
        with contextlib.suppress(KeyError):
            return int(user), pwd.getpwuid(int(user)).pw_gid
        return int(user), int(user)
    account = pwd.getpwnam(user)
    return account.pw_uid, account.pw_gid


def _require_roots_alone(paths: Sequence[str]) -> None:
    """What runs as root must be for root alone to change. Raises NotSeparable."""
    for given in paths:
        for way in (Path(os.path.realpath(given)), Path(os.path.abspath(given)).parent):
            for path in (way, *way.parents):
                about = path.stat()
                by_others = about.st_mode & 0o002 or (about.st_mode & 0o020 and about.st_gid != 0)
                if about.st_uid != 0 or (by_others and not about.st_mode & stat.S_ISVTX):
                    raise NotSeparable(f"{path} is not root's alone to change, and would be run as root")


def _require_firm_place(data_dir: Path, uid: int, gid: int) -> None:
    """Or the service's user could have root hand over something else at the next start. Raises NotSeparable.

    A sticky folder does not help where the next one on the way is that user's, as the data directory is.
    """
    for given in (os.path.abspath(data_dir), os.path.realpath(data_dir)):
        for path in Path(given).parents:
            if not os.path.lexists(path):
                continue
            about = path.lstat()
            mode = 0 if stat.S_ISLNK(about.st_mode) else about.st_mode
            by_others = mode & 0o002 or (mode & 0o020 and about.st_gid == gid)
            is_firm = mode & stat.S_ISVTX and path != Path(given).parent
            if about.st_uid == uid or (by_others and not is_firm):
                raise NotSeparable(
                    f"the service's user may change {path}, and could put another folder in place of "
                    f"{data_dir}"
                )


def _require_store_inside(database_url: str, data_dir: str) -> None:
    scheme, _, path = database_url.partition(":///")
    if scheme == "sqlite" and not os.path.realpath(path).startswith(data_dir + "/"):
        raise NotSeparable(f"the store {path} is outside of the data directory, which alone is handed over")


def require_no_job_of_roots(data_dir: str, uid: int) -> None:
    """Shims that an earlier service started as root write files that only root can read."""
    if is_handed_over(data_dir, uid):
        return
    with contextlib.suppress(FileNotFoundError), os.scandir(f"{data_dir}/jobs") as jobs:
        for job in jobs:
            with contextlib.suppress(OSError), os.scandir(f"{job.path}/attempts") as attempts:
                for attempt in attempts:
                    if lock_holder(f"{attempt.path}/lock") is not None:
                        raise NotSeparable(
                            "jobs that were started without it still run: restart when they ended"
                        )


def _first_that_exists(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _try(uid: int, gid: int, python: str, flags: list[str], *, search: list[str], read: list[str]) -> None:
    """Be this user, start the interpreter and look at the folders. Raises NotSeparable."""
    who = f"user {uid}"
    try:
        done = subprocess.run(
            [python, *flags, "-B", "-c", _TRIAL, json.dumps([search, read])],
            user=uid,
            group=gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath},
            cwd="/",
            timeout=_TRIAL_WITHIN_S,
            check=False,
        )
        trouble = json.loads(done.stdout or b'["its interpreter", "ended at once"]')
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        trouble = [python, getattr(error, "strerror", None) or str(error)]
    if trouble is not None:
        path, why = trouble
        closed = _closed_folder(str(path), uid, gid)
        advice = f"; {closed} is not searchable for others" if closed else ""
        raise NotSeparable(f"{who} cannot use {path} ({why}){advice}")


def _closed_folder(path: str, uid: int, gid: int) -> str | None:
    """The first folder on the way that the user may not search, going by its mode."""
    parts = os.path.realpath(path).split("/")
    for number in range(1, len(parts)):
        folder = "/".join(parts[:number]) or "/"
        try:
            about = os.stat(folder)
        except OSError:
            return None
        bit = 0o100 if about.st_uid == uid else 0o010 if about.st_gid == gid else 0o001
        if not about.st_mode & bit:
            return folder
    return None


def with_users(level: IsolationLevel) -> IsolationLevel:
    """The level where every running attempt has a user id of its own."""
    told = [each for each in level.detail.split("; ") if each != probe.MAY_LEAVE]
    if level.name == "subreaper":
        told[0] = "every job has a user of its own, whose processes are all ended at one stroke"
    else:
        told.insert(1, "every job has a user of its own")
    name = "uid" if level.name == "subreaper" else level.name
    protections = (*level.protections, "uid")
    return replace(level, name=name, protections=protections, detail="; ".join(told), certain=True)


def without_users(level: IsolationLevel, why: str) -> IsolationLevel:
    return replace(level, detail=f"{level.detail}; no user of its own for each job: {why}")


# ---------------------------------------------------------------- doing


def separate(
    settings: RunnerSettings, users: JobUsers, cold: WarmSpec, warm: WarmSpec | None, measures: Measures
) -> Monitor:
    """Hand the data over, start the monitor, and be the service's user from here on, for good.

    In a process with one thread. Raises OSError, DataDirUnusable.
    """
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.setgroups([])
    hand_over(settings.data_dir, users)
    monitor = start_monitor(users, cold=cold, warm=warm, measures=measures, open_files=open_files)
    _drop(users)
    os.umask(0o077)  # what the service makes is in folders that jobs' users may search
    return monitor


def start_monitor(
    users: JobUsers, *, cold: WarmSpec, warm: WarmSpec | None, measures: Measures, open_files: int
) -> Monitor:
    """Raises OSError."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (control, its_control), (files, its_files) = pairs
    setup = {
        "packages": {"runner": _HERE},
        "program": _LAUNCHER,
        "launchers": {"cold": _launcher(cold), "warm": None if warm is None else _launcher(warm)},
        "measures": measures.dump(),
        "users": users.to_json(),
        "open_files": open_files,
    }
    with its_control, its_files:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-B",
                _PROGRAM,
                json.dumps(setup),
                str(its_files.fileno()),
                " " * 64,
            ],
            stdin=its_control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[its_files.fileno()],
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
    control.settimeout(_READY_WITHIN_S)
    if b"ready" not in control.recv(4096):
        process.kill()
        raise OSError("the privileged monitor could not be started")
    return Monitor(process, control, files, warm=warm)


def _launcher(spec: WarmSpec) -> dict[str, Any]:
    return {
        "python": spec.python,
        "flags": ["-I", "-S"] if spec.isolated else ["-I"],
        "packages": dict(spec.packages),
        "preload": spec.preload,
        "environment": {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
    }


def _drop(users: JobUsers) -> None:
    """Be the service's user for good, with no capability left and none to be had. Raises OSError."""
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):  # there are fewer
            prctl(_PR_CAPBSET_DROP, capability)
    become(users.service_uid, users.service_gid)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_SET_DUMPABLE, 0)
