"""Which files of a job can be reached, whatever the job makes of its folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runner.errors import OutputNotFound
from runner.file_listing import FileQuery
from runner.job_files import JobFiles, LocalJobFolders, OpenedFile
from tests.support.mounts import run_or_skip, unmount

SECRET = b"secret"


class JobOnDisk:
    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "jobs" / "one"
        self.work = self.folder / "work"
        self.work.mkdir(parents=True)
        (self.work / "file").write_bytes(b"content")
        (self.folder / "attempts").mkdir()
        (self.folder / "attempts" / "file").write_bytes(SECRET)
        other = data_dir / "jobs" / "two" / "work"
        other.mkdir(parents=True)
        (other / "file").write_bytes(SECRET)
        self.files = JobFiles(LocalJobFolders(data_dir))

    def paths(self) -> list[bytes]:
        return [item.path for item in self.files.list("one", FileQuery()).items]

    def content(self, path: bytes = b"file") -> bytes:
        with self.files.open("one", path) as file:
            return file.read(0, 100)


@pytest.fixture
def job(tmp_path: Path) -> JobOnDisk:
    return JobOnDisk(tmp_path)


def test_its_files_are_listed_and_read(job: JobOnDisk) -> None:
    assert (job.paths(), job.content()) == ([b"file"], b"content")


def test_before_there_is_a_directory_there_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    files = JobFiles(LocalJobFolders(tmp_path))
    assert files.list("one", FileQuery()).total == 0
    with pytest.raises(OutputNotFound):
        files.open("one", b"file")


OTHER_JOBS_FILE = b"/".join([b"..", b"..", b"two", b"work", b"file"])


@pytest.mark.parametrize("path", [b"../attempts/file", OTHER_JOBS_FILE, b"", b".", b"/etc/passwd"])
def test_nothing_beside_the_working_directory_is_reached(job: JobOnDisk, path: bytes) -> None:
    with pytest.raises(OutputNotFound):
        job.files.open("one", path)


@pytest.mark.parametrize("target", ["/jobs/two/work", "/jobs/one/attempts", "relative"])
def test_a_working_directory_that_became_a_link_is_not_followed(
    job: JobOnDisk, tmp_path: Path, target: str
) -> None:
    shutil.rmtree(job.work)
    job.work.symlink_to("attempts" if target == "relative" else f"{tmp_path}{target}")
    assert job.paths() == []
    with pytest.raises(OutputNotFound):
        job.content()


def test_a_job_folder_that_became_a_link_is_not_followed(job: JobOnDisk, tmp_path: Path) -> None:
    shutil.rmtree(job.folder)
    job.folder.symlink_to(tmp_path / "jobs" / "two")
    assert job.paths() == []
    with pytest.raises(OutputNotFound):
        job.content()


def test_the_data_directory_itself_may_be_a_link(job: JobOnDisk, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    job.files = JobFiles(LocalJobFolders(tmp_path / "link"))
    assert (job.paths(), job.content()) == ([b"file"], b"content")


@pytest.mark.root
def test_all_jobs_may_be_on_a_file_system_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    run_or_skip("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "jobs"))
    try:
        job = JobOnDisk(tmp_path)
        assert (job.paths(), job.content()) == ([b"file"], b"content")
    finally:
        unmount(tmp_path / "jobs")


def test_what_may_not_be_read_is_not_found(job: JobOnDisk) -> None:
    class Closed(LocalJobFolders):
        def open_file(self, job_id: str, path: bytes) -> int:
            raise PermissionError(13, "closed", job_id, None, path.decode())

    with pytest.raises(OutputNotFound):
        JobFiles(Closed(job.work)).open("one", b"file")


def test_an_open_file_stays_the_one_it_was(job: JobOnDisk) -> None:
    with job.files.open("one", b"file") as file:
        (job.work / "file").unlink()
        (job.work / "file").write_bytes(b"another")
        assert (file.size_bytes, file.read(0, 100), file.read(3, 2)) == (7, b"content", b"te")


def test_a_file_is_told_from_another_in_its_place(job: JobOnDisk) -> None:
    with job.files.open("one", b"file") as before:
        (job.work / "new").write_bytes(b"content")
        os.utime(job.work / "new", ns=(before.modified_ns, before.modified_ns))
        (job.work / "new").rename(job.work / "file")
        with job.files.open("one", b"file") as after:
            assert before.identity != after.identity
            assert before.modified_ns == after.modified_ns


def test_a_descriptor_is_closed_once_it_is_no_longer_used(job: JobOnDisk) -> None:
    with OpenedFile.of(os.open(job.work / "file", os.O_RDONLY)) as file:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read(0, 1)
