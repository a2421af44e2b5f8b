"""Jobs' working directories where running jobs have users of their own: the monitor opens what is theirs."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from runner.job_files import LocalJobFolders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.file_listing import FolderEntry
    from runner.monitor import Monitor


class MonitoredJobFolders:
    """`JobFolders` that asks the monitor for what is a job's user's, and opens what is the service's."""

    def __init__(self, data_dir: str | os.PathLike[str], monitor: Monitor) -> None:
        self._data_dir = os.fspath(data_dir)
        self._local = LocalJobFolders(data_dir)
        self._monitor = monitor

    def open_file(self, job_id: str, path: bytes) -> int:
        if not self._is_given_away(job_id):
            with suppress(PermissionError):  # given away since, or closed: the monitor opens both
                return self._local.open_file(job_id, path)
        return self._monitor.open_file(job_id, path)

    def list_folder(self, job_id: str, path: bytes) -> Iterator[FolderEntry]:
        if not self._is_given_away(job_id):
            entries = self._local.list_folder(job_id, path)
            try:
                first = next(entries, None)
            except PermissionError:
                pass
            else:
                return chain([first], entries) if first is not None else entries
        return self._monitor.list_folder(job_id, path)

    def _is_given_away(self, job_id: str) -> bool:
        try:
            about = os.lstat(f"{self._data_dir}/jobs/{job_id}/work")
        except OSError:
            return False
        return about.st_uid != os.geteuid()
