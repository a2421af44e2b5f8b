"""Folders of a job as one ZIP archive, made while it is sent: no file of it is ever on our disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from api.zip_format import ZipWriter, entry_name
from runner.errors import OutputNotFound
from runner.file_listing import FileQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from runner.callers_jobs import CallersJobs

ZIP: Final = "application/zip"

_READ_BYTES: Final = 2**16


class Content(Protocol):
    """What an entry is made of; `size_bytes` is the most that `pieces` will give."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def modified_ns(self) -> int: ...
    def pieces(self, most_bytes: int) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Member(NamedTuple):
    """`open` raises OutputNotFound where there is nothing any more; it is left out then."""

    name: bytes
    open: Callable[[], Content]


def folder_members(jobs: CallersJobs, job_id: str, folder: bytes, *, hidden: bool) -> Iterator[Member]:
    """The plain files below a folder of the working directory; `folder` ends with a slash, or is all of it.

    They are named as below a folder of the same name, so that nothing is unpacked into whatever is there:
    the working directory's is called by the job's id. Raises as `JobService.every_output` does.
    """
    above = folder[: folder.rfind(b"/", 0, -1) + 1]
    into = b"" if folder else job_id.encode() + b"/"
    found = jobs.every_output(job_id, FileQuery(prefix=folder, hidden=hidden))
    return (Member(entry_name(into + file.path[len(above) :]), opened) for file, opened in found)


def archive(members: Iterable[Member]) -> Generator[bytes]:
    """The archive's bytes. What `members` and reading raise ends it before its directory, so it is not whole.

    A file that has become shorter is in it as far as it went, one that grows as it was when it was opened.
    """
    writer = ZipWriter()
    for member in members:
        try:
            content = member.open()
        except OutputNotFound:
            continue
        try:
            yield writer.begin(member.name, content.modified_ns, content.size_bytes)
            for piece in content.pieces(_READ_BYTES):
                if packed := writer.content(piece):
                    yield packed
            yield writer.end()
        finally:
            content.close()
    yield from writer.close()
