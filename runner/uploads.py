"""Files that come with a job: `<data_dir>/uploads/<job id>`, until the job is stored.

1. They are written below `uploads`, and synced.
2. The job's row is stored.
3. The folder is renamed to `<data_dir>/jobs/<id>`; whoever launches the job does so if nobody has yet.

What has no row is removed: at once, or at the next start when the service was cut short between 1 and 2.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from runner.archives import Allowance, UnusableArchive, kind_of, unpack
from runner.attempt_files import AttemptFiles
from runner.disk_trouble import no_room_for, telling_trouble
from runner.errors import (
    FieldError,
    InvalidSpec,
    JobFilesGone,
    JobNotFound,
    StoreUnavailable,
    TooManyUploads,
)
from runner.file_sink import Budget, FileSink
from runner.file_sync import sync_file_system
from runner.jobs import UPLOADED, Attachment
from runner.tree_names import ATTACHMENT_NAME, WORKFLOW_NAME, TreeNames, UnusableName
from runner.workflow_folder import snakefile_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.jobs import Job
    from runner.ports import AttachmentRules

_log = structlog.get_logger(__name__)

MOST_FILES: Final = 1_000
_FILES: Final = "the job's files"
_MOST_OF_TENANT: Final = 8
_LOOK_EVERY_BYTES: Final = 4 * 2**20


class Uploads:
    """All files on their way to a job. Thread-safe."""

    def __init__(self, data_dir: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self._root = data_dir / "uploads"
        self._jobs = data_dir / "jobs"
        self._lock = threading.Lock()
        self._of_tenants: Counter[str] = Counter()  # under way
        self._moving = threading.Lock()
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes

    def begin(
        self, job_id: str, tenant: str, *, max_bytes: int | None = None, takes_no_files: str = ""
    ) -> Upload:
        """Raises TooManyUploads, StorageFull, StoreUnavailable.

        Less than usual may come if `max_bytes` says so. `takes_no_files` says why none may.
        """
        folder = self._root / job_id
        limit_bytes = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        with self._lock:
            if self._of_tenants[tenant] == _MOST_OF_TENANT:  # what is not stored yet counts for no quota
                raise TooManyUploads(tenant, _MOST_OF_TENANT)
            with telling_trouble(_FILES, StoreUnavailable):
                os.makedirs(self._root, mode=0o700, exist_ok=True)
                os.mkdir(folder, 0o700)
            self._of_tenants[tenant] += 1

        def on_close() -> None:
            with self._lock:
                self._of_tenants[tenant] -= 1
                self._of_tenants += Counter()  # without the zeros

        return Upload(
            job_id,
            folder,
            max_bytes=limit_bytes,
            min_free_bytes=self._min_free_bytes,
            takes_no_files=takes_no_files,
            on_close=on_close,
        )

    def settle(self, job: Job) -> None:
        """The job is stored: what came with it becomes the job's, if it is not yet.

        Raises JobFilesGone for a job that has none of its files and has not begun; OSError.
        """
        if not job.spec.attachments and job.spec.workflow != UPLOADED:
            return
        with self._moving:
            self._move(job.id)
        files = AttemptFiles.of(self._jobs.parent, job.id, job.attempt)
        if not any(map(os.path.isdir, (files.attachments, files.workflow, files.work))):
            raise JobFilesGone("The files that came with the job are gone: submit it again.")

    def _move(self, job_id: str) -> None:
        source, target = self._root / job_id, self._jobs / job_id
        try:
            os.rename(source, target)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EXDEV:  # the folder of all jobs may be a mount of its own
                raise
            beside = self._jobs / f".{job_id}.coming"
            shutil.rmtree(beside, ignore_errors=True)  # of a copy that was cut short
            shutil.copytree(source, beside)
            sync_file_system(beside)
            os.rename(beside, target)
            shutil.rmtree(source, ignore_errors=True)

    def drop_settled(self, job_id: str) -> None:
        """The job was deleted before its files were its own."""
        shutil.rmtree(self._jobs / job_id, ignore_errors=True)

    def sweep(self, stored: Callable[[str], Job]) -> None:
        """Before any upload is begun: settle or remove what an earlier run of the service has left.

        `stored` raises JobNotFound for an id without a job.
        """
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return
        for name in names:
            try:
                self.settle(stored(name))
            except JobNotFound:
                shutil.rmtree(self._root / name, ignore_errors=True)
            except (OSError, StoreUnavailable, JobFilesGone) as error:
                _log.warning("upload.left_behind", job_id=name, error=str(error))


class Upload:
    """The files of one job, for one thread at a time. To be closed, whatever came of it."""

    def __init__(
        self,
        job_id: str,
        folder: Path,
        *,
        max_bytes: int,
        min_free_bytes: int,
        takes_no_files: str,
        on_close: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self.max_bytes = max_bytes
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._takes_no_files = takes_no_files
        self._on_close: Callable[[], None] | None = on_close
        self._received = Budget(max_bytes)
        self._sinks: list[FileSink] = []
        self._workflow: FileSink | None = None
        self._is_left = False
        self._allowance = Allowance()
        self._since_look_bytes = _LOOK_EVERY_BYTES

    def close(self) -> None:
        """Remove what is not a stored job's by now. Safe to repeat."""
        if self._on_close is not None:
            self._on_close()
            self._on_close = None
        for sink in (*self._sinks, *([self._workflow] if self._workflow else [])):
            sink.close()
        if not self._is_left:
            shutil.rmtree(self._folder, ignore_errors=True)  # nothing is there where it was settled

    def leave(self) -> None:
        """Nobody knows whether the job is stored: what becomes of its files is for the next start to say."""
        self._is_left = True

    # ------------------------------------------------------------ receiving

    def attachment(self, name: str) -> FileSink:
        """Where to write the next input file. Raises InvalidSpec, StorageFull, StoreUnavailable."""
        number = len(self._sinks)
        if self._takes_no_files:
            raise _refused(number, self._takes_no_files)
        if number == MOST_FILES:
            raise _refused(number, f"is one too many: {MOST_FILES} files are the most")
        try:
            TreeNames(ATTACHMENT_NAME).claim(name)
        except UnusableName as error:
            raise _refused(number, str(error)) from None
        self._sinks.append(self._sink(name, f"file-{number}"))
        return self._sinks[-1]

    def workflow_file(self, name: str) -> FileSink:
        """Where to write the workflow. Raises InvalidSpec, StorageFull, StoreUnavailable."""
        if self._workflow is not None:
            raise InvalidSpec((FieldError("/workflow", "is there twice"),))
        self._workflow = self._sink(name, "workflow-file")
        return self._workflow

    def _sink(self, name: str, place: str) -> FileSink:
        with telling_trouble(_FILES, StoreUnavailable):
            return FileSink(name, self._folder / place, self._spend)

    def _spend(self, size_bytes: int) -> None:
        self._received.spend(size_bytes)
        self._require_room(size_bytes)

    def _require_room(self, size_bytes: int) -> None:
        self._since_look_bytes += size_bytes
        if self._since_look_bytes < _LOOK_EVERY_BYTES:
            return
        self._since_look_bytes = 0
        about = os.statvfs(self._folder)
        if about.f_bavail * about.f_frsize < self._min_free_bytes + _LOOK_EVERY_BYTES:
            raise no_room_for(_FILES)

    # ------------------------------------------------------------ once all is there

    @property
    def has_workflow(self) -> bool:
        return self._workflow is not None

    @property
    def size_bytes(self) -> int:
        """What was received so far."""
        return self._received.spent_bytes

    def attachments(self) -> tuple[Attachment, ...]:
        return tuple(Attachment(sink.name, sink.size_bytes, sink.sha256) for sink in self._sinks)

    def unpack_workflow(self) -> Path:
        """The folder of the workflow that came.

        Where an archive has all of it in one folder, as those of code hosts have, that is the workflow's.
        Raises InvalidSpec, UploadTooLarge, StorageFull, StoreUnavailable.
        """
        assert self._workflow is not None
        source, budget = self._workflow, Budget(self.max_bytes)
        place = self._folder / "unpacked"
        with telling_trouble(_FILES, StoreUnavailable):
            os.mkdir(place, 0o700)
            if kind_of(source.name) is None:
                os.rename(source.place, place / "Snakefile")
            else:
                try:
                    self._unpack(source, place, TreeNames(WORKFLOW_NAME), budget)
                except UnusableArchive as error:
                    raise InvalidSpec((FieldError("/workflow", str(error)),)) from None
            if snakefile_in(place) is None and len(inside := os.listdir(place)) == 1:
                place /= inside[0]
            if snakefile_in(place) is None:
                raise InvalidSpec((FieldError("/workflow", "has no Snakefile or workflow/Snakefile"),))
            os.rename(place, self._folder / "workflow")
            shutil.rmtree(self._folder / "unpacked", ignore_errors=True)
            source.place.unlink(missing_ok=True)
        return self._folder / "workflow"

    def place_attachments(self, rules: AttachmentRules, workflow: Path) -> None:
        """Put the input files where they are looked for, archives unpacked if the rules say so.

        Raises InvalidSpec for what the rules refuse, and for what the workflow's own folder `input` has
        already; UploadTooLarge, StorageFull, StoreUnavailable.
        """
        target = self._folder / "attachments"
        names, budget = TreeNames(ATTACHMENT_NAME), Budget(rules.max_bytes)
        allowed = None if rules.names is None else re.compile(rules.names)
        count = 0
        with telling_trouble(_FILES, StoreUnavailable):
            os.mkdir(target, 0o700)
            for number, sink in enumerate(self._sinks):
                try:
                    paths = self._place(sink, target, names, budget, is_unpacked=rules.unpack)
                except (UnusableName, UnusableArchive) as error:
                    raise _refused(number, str(error)) from None
                count += len(paths)
                if count > rules.max_files:
                    raise _refused(number, f"is too many: {rules.max_files} files are the most")
                for path in paths:
                    if allowed is not None and not allowed.fullmatch(path):
                        raise _refused(number, f"{path!r} is no name for a file that this workflow takes")
                    if _is_taken(workflow / "input", path):
                        raise _refused(number, f"{path!r} is in the way of a file of the workflow's own")

    def _place(
        self, sink: FileSink, target: Path, names: TreeNames, budget: Budget, *, is_unpacked: bool
    ) -> list[str]:
        """Raises UnusableName, UnusableArchive, OSError."""
        if is_unpacked and kind_of(sink.name) is not None:
            paths = self._unpack(sink, target, names, budget)
            sink.place.unlink()
            return paths
        names.claim(sink.name)
        budget.spend(sink.size_bytes)
        place = target / sink.name
        os.makedirs(place.parent, mode=0o700, exist_ok=True)
        os.rename(sink.place, place)
        return [sink.name]

    def _unpack(self, sink: FileSink, target: Path, names: TreeNames, budget: Budget) -> list[str]:
        kind = kind_of(sink.name)
        assert kind is not None

        def spend(size_bytes: int) -> None:
            budget.spend(size_bytes)
            self._require_room(size_bytes)

        return unpack(
            os.fspath(sink.place),
            kind,
            os.fspath(target),
            names,
            spend=spend,
            allowance=self._allowance,
        )

    def sync(self) -> None:
        """Nothing of it is lost from here on. Raises StorageFull, StoreUnavailable."""
        with telling_trouble(_FILES, StoreUnavailable):
            sync_file_system(self._folder)


def _is_taken(folder: Path, path: str) -> bool:
    """Whether the workflow has something there, or on the way to it anything but a folder."""
    *parents, _ = [folder, *(folder / part for part in _ways(path))]
    return os.path.lexists(folder / path) or any(
        os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir()) for parent in parents
    )


def _ways(path: str) -> Iterator[str]:
    names = path.split("/")
    return ("/".join(names[:end]) for end in range(1, len(names) + 1))


def _refused(number: int, detail: str) -> InvalidSpec:
    return InvalidSpec((FieldError(f"/files/{number}", detail),))
