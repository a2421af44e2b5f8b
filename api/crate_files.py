"""The files of a job as its crate has them: where they are in it, and what they are."""

from __future__ import annotations

from bisect import bisect_left
from mimetypes import MimeTypes
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from api.problems import Kind, Problem
from api.zip_format import entry_name
from runner.file_listing import FileQuery, TooManyFiles

if TYPE_CHECKING:
    from runner.callers_jobs import CallersJobs
    from runner.file_listing import ListedFile
    from runner.jobs import Job

NO_CRATE: Final = Kind(409, "no-ro-crate", "There is no run of the job to describe")

WORK: Final = "work/"
METADATA: Final = "ro-crate-metadata.json"
README: Final = "README.md"
CONFIG: Final = "config.json"
LOG: Final = "log.txt"
MOST_DESCRIBED: Final = 100_000
_MOST_PATH_BYTES: Final = 2**25  # of all of them

_SNAKEFILES: Final = (b"Snakefile", b"workflow/Snakefile")
_LICENSES: Final = (b"LICENSE", b"LICENSE.md", b"LICENSE.txt", b"COPYING")
_TYPES: Final = MimeTypes()  # Python's own table, not the machine's
_TYPES.add_type("text/x-snakemake", ".smk")
_TYPES.add_type("text/yaml", ".yaml")
_TYPES.add_type("text/yaml", ".yml")
_TYPES.add_type("text/markdown", ".md")
_SNAKEMAKE_TYPE: Final = "text/x-snakemake"


class CrateFiles:
    """The plain files in a job's working directory, without hidden ones: the first 100,000 that are found.

    Fewer, where their paths are very long.
    """

    def __init__(self, jobs: CallersJobs, job_id: str) -> None:
        """Raises JobNotFound, Problem (409) where there is no workflow, OSError."""
        self.files: list[ListedFile] = []
        self.is_whole = True
        room_bytes = _MOST_PATH_BYTES
        try:
            for file, _ in jobs.every_output(job_id, FileQuery()):
                room_bytes -= len(file.path)
                if len(self.files) == MOST_DESCRIBED or room_bytes < 0:
                    self.is_whole = False
                    break
                self.files.append(file)
        except TooManyFiles:
            self.is_whole = False
        self.files.sort()
        self._marker = f"/jobs/{job_id}/{WORK}"
        self._paths = {file.path for file in self.files}
        self._sorted = [file.path for file in self.files]
        snakefile = next((path for path in _SNAKEFILES if path in self._paths), None)
        if snakefile is None:
            raise Problem(
                NO_CRATE, "There is no Snakefile in its working directory, so nothing tells what ran."
            )
        self.snakefile: bytes = snakefile

    @property
    def license(self) -> bytes | None:
        """The workflow's."""
        return next((path for path in _LICENSES if path in self._paths), None)

    def place(self, path: str) -> str:
        """The id of what a task names by this path: a file or a folder of the crate, or what is not in it."""
        below = path.partition(self._marker)[2] or path if path.startswith("/") else path
        names = [name for name in below.split("/") if name not in ("", ".")]
        if not below.startswith("/"):
            found = "/".join(names).encode("utf-8", "surrogateescape")
            if found in self._paths:
                return file_id(found)
            if self._has_folder(found + b"/"):
                return file_id(found + b"/")
        return f"#absent/{quote(below, errors='replace')}"

    def _has_folder(self, path: bytes) -> bool:
        # Looked for among the files: those of a hostile job may each be in sixty folders of their own.
        at = bisect_left(self._sorted, path)
        return self._sorted[at : at + 1] != [] and self._sorted[at].startswith(path)


def file_id(path: bytes) -> str:
    return WORK + quote(entry_name(path))


def encoding_format(path: bytes) -> str:
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    if name == "Snakefile":
        return _SNAKEMAKE_TYPE
    return _TYPES.guess_type(name)[0] or "application/octet-stream"


def told(job: Job) -> str:
    """How it ended, in a few words."""
    reason = "" if job.reason is None else f", {job.reason.value.replace('_', ' ')}"
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    return f"{job.status.value}{reason}{code}"


def stand_in(job: Job) -> str:
    """What has to be said of a run that Snakemake had no part in."""
    return " A stand-in took the place of Snakemake: nothing was computed." if job.engine == "mock" else ""
