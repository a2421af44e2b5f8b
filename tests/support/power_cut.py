"""A disk whose power can be cut: ext4 in a file, shut down without writing anything more. For root alone.

EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH stops the file system where it is: what was in memory
only, the journal's running transaction included, never reaches the disk (fs/ext4/ioctl.c).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
from typing import TYPE_CHECKING, Self

from tests.support.mounts import run_or_skip, unmount_elsewhere
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_NO_LOG_FLUSH = struct.pack("I", 2)
_SIZE_BYTES = 96 * 2**20
# Nothing is written in its own time: only what was asked for by fsync is on the disk.
_OPTIONS = "commit=300"


class PowerCutDisk:
    """A file system at `folder`; skips the test where none can be made. On exit everybody on it is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._image = folder.with_name(folder.name + ".image")
        folder.mkdir()
        with open(self._image, "wb") as image:
            image.truncate(_SIZE_BYTES)
        run_or_skip("mkfs.ext4", "-q", "-F", str(self._image))
        self._device = run_or_skip("losetup", "--find", "--show", str(self._image))
        self.cuts = 0
        self._others: list[int] = []

    def __enter__(self) -> Self:
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_users()
        self._unmount()
        subprocess.run(["losetup", "--detach", self._device], check=True)
        self._image.unlink()

    def settle(self) -> None:
        """Bring all that is there now to the disk."""
        self._unmount()
        self._mount()

    def cut(self, *others: int) -> None:
        """From this moment on nothing reaches the disk.

        Everybody on it is stopped first, after the processes `others` who make new ones: while the file
        system is being shut down an fsync may be told that all is well, and nobody may act on that.
        """
        self._others = [os.pidfd_open(pid) for pid in others]
        for handle in self._others:
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
        wait_until(
            lambda: not self._signal_users(signal.SIGSTOP), what=f"everybody on {self.folder} has stopped"
        )
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _IOC_SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(fd)
        self.cuts += 1

    def restore(self) -> None:
        """After a cut: end all who were stopped for it, then mount again, with the journal's replay."""
        for handle in self._others:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._others = []
        self._end_users()
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        run_or_skip("mount", "-t", "ext4", "-o", _OPTIONS, self._device, str(self.folder))

    def _unmount(self) -> None:
        def unmounted() -> bool:
            return (
                subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode == 0
            )

        wait_until(unmounted, what=f"nobody uses {self.folder}")
        unmount_elsewhere(self.folder)

    def _end_users(self) -> None:
        wait_until(
            lambda: not self._signal_users(signal.SIGKILL), what=f"everybody on {self.folder} has ended"
        )

    def _signal_users(self, number: int) -> int:
        """Signal every process with its working directory or a file on it; how many there are.

        Stopped ones do not count when they are to be stopped.
        """
        met = 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(int(name))
                try:
                    if self._uses(name) and not (number == signal.SIGSTOP and _state(name) == b"T"):
                        signal.pidfd_send_signal(handle, number)
                        met += 1
                finally:
                    os.close(handle)
        return met

    def _uses(self, pid: str) -> bool:
        inside = f"{self.folder}/"
        places = [f"/proc/{pid}/cwd"]
        with contextlib.suppress(OSError):
            places += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        for place in places:
            with contextlib.suppress(OSError):
                if f"{os.readlink(place)}/".startswith(inside):
                    return True
        return False


def _state(pid: str) -> bytes:
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rsplit(b") ", 1)[1][:1]
