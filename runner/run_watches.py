"""Which running attempt's events file has changed: told by inotify, or looked after where that is used up."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from runner import inotify
from runner.inotify import Inotify
from runner.job_files import open_in_job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.attempt_files import AttemptFiles
    from runner.ports import Handle

_log = structlog.get_logger(__name__)

_FILE_MASK: Final = inotify.MODIFY | inotify.ATTRIB | inotify.DELETE_SELF | inotify.MOVE_SELF
_FOLDER_MASK: Final = inotify.CREATE | inotify.MOVED_TO | inotify.ONLYDIR | inotify.DONT_FOLLOW
_EVENTS: Final = b"events.jsonl"


class RunWatches:
    """One watch for each attempt: on its events file, or on its folder while there is no such file.

    It belongs to one thread. What can't be watched is among `unwatched`: look at these from time to time.
    """

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._by_number: dict[int, tuple[Handle, AttemptFiles]] = {}
        self._numbers: dict[Handle, int] = {}
        self.unwatched: dict[Handle, AttemptFiles] = {}
        self._complained = False
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._complain(error)

    @property
    def fd(self) -> int | None:
        """Readable when something has changed; None where the kernel has no inotify to give."""
        return None if self._inotify is None else self._inotify.fd

    def watch(self, handle: Handle, files: AttemptFiles) -> None:
        """Watch from now on, anew if it is watched already."""
        self.forget(handle)
        try:
            number = self._enter(files)
        except OSError as error:
            self.unwatched[handle] = files
            if not isinstance(error, FileNotFoundError):
                self._complain(error)
        else:
            self._numbers[handle] = number
            self._by_number[number] = (handle, files)

    def forget(self, handle: Handle) -> None:
        self.unwatched.pop(handle, None)
        number = self._numbers.pop(handle, None)
        if number is not None and self._by_number.pop(number, None) is not None and self._inotify is not None:
            self._inotify.remove(number)

    def changed(self) -> Iterable[Handle]:
        """The attempts that may have told something since the last call."""
        found: dict[Handle, None] = {}
        for seen in self._inotify.read() if self._inotify is not None else ():
            if seen.mask & inotify.OVERFLOW:
                return self._all_anew()
            known = self._by_number.get(seen.watch)
            if known is None or (seen.name and seen.name != _EVENTS):
                continue
            handle, files = known
            found[handle] = None
            if seen.mask & ~inotify.MODIFY:  # there is a file now, or this one may have gone
                if seen.mask & inotify.IGNORED:
                    del self._by_number[seen.watch]
                self.watch(handle, files)
        return found

    def _all_anew(self) -> list[Handle]:
        """Any file may have been made, or replaced by another, without a word."""
        watched = list(self._by_number.values())
        for handle, files in watched:
            self.watch(handle, files)
        return [handle for handle, _ in watched]

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def _enter(self, files: AttemptFiles) -> int:
        """Raises OSError: FileNotFoundError when there is neither the file nor its folder."""
        if self._inotify is None:
            raise FileNotFoundError
        with suppress(FileNotFoundError):
            return self._enter_file(files)
        number = self._inotify.add(files.directory, _FOLDER_MASK)
        try:
            file_number = self._enter_file(files)  # it may have been made since
        except FileNotFoundError:
            return number
        self._inotify.remove(number)
        return file_number

    def _enter_file(self, files: AttemptFiles) -> int:
        assert self._inotify is not None
        fd = open_in_job(files, files.events)
        try:
            # The very file that was opened, whatever stands at its path by now.
            return self._inotify.add(f"/proc/self/fd/{fd}", _FILE_MASK)
        finally:
            os.close(fd)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("run_watch_polls", error=os.strerror(error.errno or 0))
