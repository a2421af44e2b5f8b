"""The processes of jobs, as /proc tells of them: the other side of what the API says."""

from __future__ import annotations

import os
import re
import select
import signal
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from runner.isolation.processes import parent_of
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

T = TypeVar("T")

_ID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_MARKER: Final = re.compile(rb"(?:^|\0)SNAKELINE_JOB_ID=(" + _ID.encode() + rb")\0")
_TITLE: Final = re.compile(rf"^snakeline: .*\b({_ID})/(\d+)$")
_SHIM: Final = re.compile(rf"^snakeline: shim of job ({_ID})/(\d+)$")
_GONE_WITHIN_S: Final = 10.0


def title_of(pid: int) -> str:
    """What `ps` shows of it; empty when it is gone."""
    return _read(pid, "cmdline").rstrip(b"\0 ").decode(errors="replace")


def job_of(pid: int) -> str | None:
    """The id of the job it belongs to, by its title or by the environment it was started with."""
    if found := _TITLE.match(title_of(pid)):
        return found[1]
    if found_marker := _MARKER.search(_read(pid, "environ")):
        return found_marker[1].decode()
    return None


def by_job() -> dict[str, list[int]]:
    """The live processes of every job on this machine: shims, engines and what those started."""
    found: dict[str, list[int]] = {}
    for pid in _pids():
        job_id = job_of(pid)
        if job_id is not None and _state(pid) not in ("", "Z", "X"):
            found.setdefault(job_id, []).append(pid)
    return found


def shims() -> dict[tuple[str, int], int]:
    """The pid of every shim on this machine, by job and attempt."""
    found: dict[tuple[str, int], int] = {}
    for pid in _pids():
        title = title_of(pid)
        match = _SHIM.match(title)
        # Its child has its title until it becomes the engine.
        if match and title_of(parent_of(pid) or 0) != title:
            found[match[1], int(match[2])] = pid
    return found


def kill_and_wait(pid: int, title: str) -> bool:
    """SIGKILL the process, if it still has this title, and wait until it is gone; false if it was."""
    return kill_frozen(pid, title, lambda: True) or False


def kill_frozen(pid: int, title: str, look: Callable[[], T]) -> T | None:
    """Stop the process, look while it cannot move, then SIGKILL it and wait until it is gone.

    None when it was gone, or another, before.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if title_of(pid) != title:
            return None
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
        wait_until(lambda: _state(pid) in ("T", "", "Z", "X"), what=f"{title} to stop")
        if _state(pid) != "T":
            return None
        seen = look()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        ready, _, _ = select.select([handle], [], [], _GONE_WITHIN_S)
        assert ready, f"{title} did not die within {_GONE_WITHIN_S} s"
        return seen
    finally:
        os.close(handle)


def kill_family(roots: Collection[int], job_ids: Collection[str]) -> None:
    """SIGKILL the roots, the jobs and all that either started, before one of them can see another die.

    All are stopped first, and listed until there is no new one, thrice: a listing misses what is forked
    behind it by a process that ends before it is looked at. Returns when every one of them has died; a
    child of the caller is still to be waited for.
    """
    handles: dict[int, int] = {}
    listings_without_new = 0
    with ExitStack() as stack:
        while listings_without_new < 3:
            listings_without_new += 1
            for pid in _family({*roots, *handles}, job_ids):
                if pid not in handles:
                    listings_without_new = 0
                    with suppress(ProcessLookupError):
                        handles[pid] = os.pidfd_open(pid)
                        stack.callback(os.close, handles[pid])
                        signal.pidfd_send_signal(handles[pid], signal.SIGSTOP)
            wait_until(lambda: not any(_state(pid) in ("R", "S") for pid in handles), what="all to stop")
        # Children before their parents: a process group whose last parent dies would be woken (setpgid(2)).
        for handle in reversed(handles.values()):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        for pid, handle in handles.items():
            assert select.select([handle], [], [], _GONE_WITHIN_S)[0], f"process {pid} outlived SIGKILL"


@contextmanager
def stalled(pid: int) -> Iterator[None]:
    """Stop the process for a while."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        wait_until(lambda: _state(pid) == "T", what=f"process {pid} to stop")
        yield
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        os.close(handle)


def _family(roots: Collection[int], job_ids: Collection[str]) -> list[int]:
    """The live ones among the roots, the jobs' processes and the descendants of both, parents first."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if (parent := parent_of(pid)) is not None:
            children.setdefault(parent, []).append(pid)
    mine = [pid for job_id, pids in by_job().items() if job_id in job_ids for pid in pids]
    family = list(dict.fromkeys([*roots, *mine]))
    for pid in family:  # which grows
        family += [child for child in children.get(pid, []) if child not in family]
    return [pid for pid in family if _state(pid) not in ("", "Z", "X")]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _state(pid: int) -> str:
    """The letter of proc_pid_stat(5); empty when it is gone."""
    return _read(pid, "stat").rpartition(b") ")[2][:1].decode()
