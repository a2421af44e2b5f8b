"""The files in jobs' working directories, for people who ask: listed, with who made them, and opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Never

from runner.access import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.access import Caller
    from runner.file_listing import FilePage, FileQuery, ListedFile
    from runner.job_files import JobFiles, OpenedFile
    from runner.job_store import JobStore
    from runner.output_producers import OutputProducers, Producer


@dataclass(frozen=True, slots=True)
class OutputQuery:
    """Which files; with `declared` only outputs of finished tasks, with `rules` only those of these rules."""

    files: FileQuery
    declared: bool = False
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputPage:
    """A page of files, and for each the task that has made it, as far as that is known."""

    files: FilePage
    producers: tuple[Producer | None, ...]


class JobOutputs:
    """Files of jobs. Thread-safe; every method may wait for the disk and raises JobNotFound."""

    def __init__(self, store: JobStore, files: JobFiles, producers: OutputProducers) -> None:
        self._store = store
        self._files = files
        self._producers = producers

    def page(self, job_id: str, query: OutputQuery, *, caller: Caller = OPERATOR) -> OutputPage:
        """A page of the files below the working directory; empty before there is one."""
        job = self._store.get(job_id, tenant=caller.visible_tenant)
        of_job = self._producers.of_job(job)
        wanted = query.files
        if query.rules:
            rules = frozenset(query.rules)
            wanted = replace(
                wanted, only=lambda path: (by := of_job.of(path)) is not None and by.rule in rules
            )
        elif query.declared:
            wanted = replace(wanted, only=lambda path: of_job.of(path) is not None)
        files = self._files.list(job_id, wanted)
        return OutputPage(files, tuple(of_job.of(file.path) for file in files.items))

    def every(
        self, job_id: str, query: FileQuery, *, caller: Caller = OPERATOR
    ) -> Iterator[tuple[ListedFile, Callable[[], OpenedFile]]]:
        """All of those files, in no order, each with what opens it: OutputNotFound for one that has gone.

        Raises TooManyFiles, and JobNotFound: also behind the last file, for a job that was deleted meanwhile.
        """
        self._store.get(job_id, tenant=caller.visible_tenant)
        return chain(self._files.every(job_id, query), self._still_there(job_id))

    def _still_there(self, job_id: str) -> Iterator[Never]:
        self._store.get(job_id)
        yield from ()

    def open(self, job_id: str, path: bytes, *, caller: Caller = OPERATOR) -> OpenedFile:
        """One of those files, to be closed by its reader. Raises OutputNotFound."""
        self._store.get(job_id, tenant=caller.visible_tenant)
        return self._files.open(job_id, path)
