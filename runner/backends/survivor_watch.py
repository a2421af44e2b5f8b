"""The service's side of survivors: waits for the shims that wait for them."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from runner.attempt_files import AttemptFiles
from runner.backends import survivors
from runner.ports import Handle

if TYPE_CHECKING:
    from collections.abc import Callable


class SurvivorWatch:
    """Hears from the kernel when a shim that stayed for survivors ends: nothing is asked again."""

    def __init__(self, data_dir: str, epoll: select.epoll) -> None:
        self._data_dir = data_dir
        self._epoll = epoll
        self._handles: dict[int, Handle] = {}  # by the shim's pidfd

    def find(self) -> list[Handle]:
        """What earlier runs of the service have left; each is waited for. Raises OSError."""
        found = [Handle(job_id, attempt) for job_id, attempt, _ in survivors.found(self._data_dir)]
        return [handle for handle in found if self.add(handle)]

    def add(self, handle: Handle) -> bool:
        """Wait for this attempt's; false when nothing of it is left. Raises OSError."""
        if handle in self._handles.values():
            return True
        files = AttemptFiles.of(self._data_dir, handle.job_id, handle.attempt)
        pidfd = _pidfd(lambda: survivors.shim_of(files))
        if pidfd is None:
            return False
        self._handles[pidfd] = handle
        self._epoll.register(pidfd, select.EPOLLIN)
        return True

    def ended(self, fd: int) -> Handle | None:
        """The attempt of which nothing is left, if this is the descriptor of its shim."""
        handle = self._handles.pop(fd, None)
        if handle is not None:
            self._epoll.unregister(fd)
            os.close(fd)
        return handle

    def close(self) -> None:
        for pidfd in self._handles:
            os.close(pidfd)
        self._handles.clear()


def _pidfd(holder: Callable[[], int | None]) -> int | None:
    """A descriptor proven to be the holder's: the same answer before and after it was opened."""
    while (pid := holder()) is not None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None  # it has just ended, or its pid is of another namespace
        if holder() == pid:
            return pidfd
        os.close(pidfd)
    return None
