"""Files that come with a job wait beside the jobs, and become a job's or nobody's."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from runner.errors import (
    InvalidSpec,
    JobFilesGone,
    JobNotFound,
    StorageFull,
    StoreUnavailable,
    TooManyUploads,
    UploadTooLarge,
)
from runner.jobs import UPLOADED, Attachment, Job, JobSpec
from runner.ports import AttachmentRules
from runner.uploads import Uploads
from tests.support.stores import a_job
from tests.support.tarballs import tgz

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.file_sink import FileSink
    from runner.uploads import Upload

ID = "019aaaac-bbbb-7ccc-8000-000000000001"
ANY = AttachmentRules(max_bytes=10_000, max_files=100)
UNPACKING = AttachmentRules(max_bytes=10_000, max_files=3, unpack=True)


def put(sink: FileSink, content: bytes) -> None:
    sink.write(content)
    sink.close()


class Place:
    def __init__(self, path: Path) -> None:
        self.data = path
        (path / "jobs").mkdir()
        (path / "workflow").mkdir()
        self.uploads = Uploads(path, max_bytes=20_000, min_free_bytes=0)
        self.upload: Upload = self.uploads.begin(ID, "a")

    def attach(self, **files: bytes) -> None:
        for name, content in files.items():
            put(self.upload.attachment(name.replace("__", "/").replace("_", ".")), content)

    def place(self, rules: AttachmentRules = ANY) -> dict[str, str]:
        self.upload.place_attachments(rules, self.data / "workflow")
        return self.found(self.data / "uploads" / ID / "attachments")

    @staticmethod
    def found(folder: Path) -> dict[str, str]:
        return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}

    def waiting(self) -> list[str]:
        return os.listdir(self.data / "uploads")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.upload.close()


def job_with_files(job_id: str = ID) -> Job:
    return a_job(job_id=job_id, attachments=(Attachment("a.txt", 1, "0" * 64),))


def refusal(place: Place, rules: AttachmentRules = ANY) -> tuple[str, str]:
    with pytest.raises(InvalidSpec) as refused:
        place.place(rules)
    return refused.value.errors[0].pointer, refused.value.errors[0].detail


# ---------------------------------------------------------------- receiving


def test_attachments_are_told_with_size_and_checksum_and_placed_by_their_names(place: Place) -> None:
    place.attach(a_txt=b"1", sub__b_txt=b"22")
    assert place.upload.attachments() == (
        Attachment("a.txt", 1, hashlib.sha256(b"1").hexdigest()),
        Attachment("sub/b.txt", 2, hashlib.sha256(b"22").hexdigest()),
    )
    assert place.place() == {"a.txt": "1", "sub/b.txt": "22"}


@pytest.mark.parametrize("name", ["../a", "/a", "a b", ".a", "", "a/", "$(x)", "é", "-a"])
def test_a_name_that_is_no_path_below_input_is_refused_before_anything_is_written(
    place: Place, name: str
) -> None:
    with pytest.raises(InvalidSpec, match="/files/0: "):
        place.upload.attachment(name)
    assert os.listdir(place.data / "uploads" / ID) == []


def test_more_than_may_come_is_refused_while_it_comes(place: Place) -> None:
    with pytest.raises(UploadTooLarge, match="20000 bytes"):
        place.attach(a=bytes(15_000), b=bytes(15_000))
    for _ in range(998):
        place.upload.attachment("x").close()
    with pytest.raises(InvalidSpec, match="1000 files are the most"):
        place.upload.attachment("x")


def test_a_disk_that_fills_up_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_bavail=100, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    uploads = Uploads(tmp_path, max_bytes=2**30, min_free_bytes=100 * 2**20)
    upload = uploads.begin(ID, "a")
    with pytest.raises(StorageFull):
        put(upload.attachment("a"), b"x")
    upload.close()
    assert os.listdir(tmp_path / "uploads") == []


def test_where_none_may_come_none_does(place: Place) -> None:
    upload = place.uploads.begin("another", "a", max_bytes=5, takes_no_files="is not taken")
    with pytest.raises(InvalidSpec, match="is not taken"):
        upload.attachment("a")
    with pytest.raises(UploadTooLarge, match=" 5 bytes"):
        put(upload.workflow_file("Snakefile"), b"123456")
    upload.close()


def test_a_tenant_sends_a_few_jobs_with_files_at_a_time_and_others_do_not_wait_for_it(place: Place) -> None:
    under_way = [place.uploads.begin(f"a{n}", "a") for n in range(7)]
    with pytest.raises(TooManyUploads):
        place.uploads.begin("one more", "a")
    place.uploads.begin("b", "b").close()
    under_way[0].close()
    under_way[0].close()
    place.uploads.begin("in its place", "a")
    with pytest.raises(TooManyUploads):
        place.uploads.begin("one more", "a")


# ---------------------------------------------------------------- placing


def test_archives_are_unpacked_where_the_workflow_wants_that_and_else_are_files(place: Place) -> None:
    place.attach(a_tgz=tgz(x_txt="1", d__y_txt="2"), b_txt=b"3")
    assert place.place(UNPACKING) == {"x.txt": "1", "d/y.txt": "2", "b.txt": "3"}


def test_archives_are_files_like_others_unless_the_workflow_wants_them_unpacked(place: Place) -> None:
    packed = tgz(x_txt="1")
    put(place.upload.attachment("a.tgz"), packed)
    place.upload.place_attachments(ANY, place.data / "workflow")
    assert (place.data / "uploads" / ID / "attachments" / "a.tgz").read_bytes() == packed


def test_two_files_of_one_name_are_refused_wherever_they_come_from(place: Place) -> None:
    place.attach(x_txt=b"1", a_tgz=tgz(X_txt="2"))
    pointer, detail = refusal(place, UNPACKING)
    assert pointer == "/files/1"
    assert "small and capital" in detail


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (replace(ANY, max_files=1), "1 files are the most"),
        (replace(ANY, names=r"[a-z]\.csv"), "no name for a file that this workflow takes"),
        (replace(ANY, names=r"a"), "no name for a file that this workflow takes"),
    ],
)
def test_the_workflows_rules_hold(place: Place, rules: AttachmentRules, told: str) -> None:
    place.attach(a_csv=b"1", ab_csv=b"2")
    assert told in refusal(place, rules)[1]


def test_the_workflows_limit_counts_what_is_unpacked(place: Place) -> None:
    place.attach(a_tgz=tgz(zeros="0" * 9_000, more="0" * 2_000))
    with pytest.raises(UploadTooLarge, match=" 10000 bytes"):
        place.place(UNPACKING)
    upload = place.uploads.begin("other", "a")
    for name in ("a", "b"):
        put(upload.attachment(name), bytes(6_000))
    with pytest.raises(UploadTooLarge, match=" 10000 bytes"):
        upload.place_attachments(ANY, place.data / "workflow")
    upload.close()


def test_a_file_of_the_workflows_own_is_never_replaced(place: Place) -> None:
    own = place.data / "workflow" / "input"
    (own / "d").mkdir(parents=True)
    (own / "a.txt").write_text("own")
    (own / "file").write_text("own")
    (own / "link").symlink_to("/tmp")
    for name in ("a.txt", "d", "file/x", "link/x"):
        upload = place.uploads.begin("other", "a")
        upload.attachment(name).close()
        with pytest.raises(InvalidSpec, match="in the way"):
            upload.place_attachments(ANY, place.data / "workflow")
        upload.close()
    place.attach(d__x=b"1")
    assert place.place() == {"d/x": "1"}


# ---------------------------------------------------------------- workflows


@pytest.mark.parametrize(
    ("name", "content", "files"),
    [
        ("Snakefile", b"rule a:", {"Snakefile"}),
        ("mine.smk", b"rule a:", {"Snakefile"}),
        ("w.tgz", tgz(Snakefile="x", _gitignore="x"), {"Snakefile", ".gitignore"}),
        ("w.tgz", tgz(repo__Snakefile="x", repo__a_py="x"), {"Snakefile", "a.py"}),
        ("w.tgz", tgz(workflow__Snakefile="x"), {"workflow/Snakefile"}),
    ],
    ids=["alone", "by another name", "archived", "in a folder", "in workflow/"],
)
def test_a_workflow_is_a_snakefile_or_an_archive_with_one(
    place: Place, name: str, content: bytes, files: set[str]
) -> None:
    put(place.upload.workflow_file(name), content)
    assert set(place.found(place.upload.unpack_workflow())) == files
    assert os.listdir(place.data / "uploads" / ID) == ["workflow"]


@pytest.mark.parametrize(
    ("content", "told"),
    [(tgz(a="x"), "no Snakefile"), (b"x", "cannot be read"), (tgz(___a="x"), "has an entry")],
    ids=["no Snakefile", "no archive", "a way out"],
)
def test_what_is_no_workflow_is_refused(place: Place, content: bytes, told: str) -> None:
    put(place.upload.workflow_file("w.tgz"), content)
    with pytest.raises(InvalidSpec, match="is there twice"):
        place.upload.workflow_file("again")
    with pytest.raises(InvalidSpec, match=told):
        place.upload.unpack_workflow()


# ---------------------------------------------------------------- whose they are


def test_files_become_the_jobs_once_and_what_is_not_settled_is_removed(place: Place) -> None:
    place.attach(a_txt=b"1")
    place.place()
    place.uploads.settle(job_with_files())
    place.uploads.settle(job_with_files())
    place.upload.close()
    assert place.found(place.data / "jobs" / ID / "attachments") == {"a.txt": "1"}
    assert place.waiting() == []
    place.uploads.begin("other", "a").close()
    assert place.waiting() == []


def test_files_get_to_a_folder_of_jobs_that_is_a_mount_of_its_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def other_device(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    place.attach(a_txt=b"1")
    place.place()
    (place.data / "jobs" / f".{ID}.coming").mkdir()  # cut short before
    monkeypatch.setattr(os, "rename", other_device)
    place.uploads.settle(job_with_files())
    assert place.found(place.data / "jobs" / ID / "attachments") == {"a.txt": "1"}
    assert os.listdir(place.data / "jobs") == [ID]
    assert place.waiting() == []


def test_a_job_without_files_needs_none_and_one_without_its_own_is_told(place: Place) -> None:
    place.uploads.settle(a_job(job_id="019aaaac-bbbb-7ccc-8000-000000000002"))
    with pytest.raises(JobFilesGone):
        place.uploads.settle(job_with_files("019aaaac-bbbb-7ccc-8000-000000000003"))
    with pytest.raises(JobFilesGone):
        place.uploads.settle(a_job(workflow=UPLOADED))


def test_the_next_start_settles_what_has_a_job_and_removes_what_has_none(place: Place) -> None:
    """As after a crash between any two steps."""
    place.attach(a_txt=b"1")
    place.place()
    place.upload.leave()
    place.upload.close()
    for other in ("unknown", "undecided"):
        place.uploads.begin(other, "a").leave()

    def stored(job_id: str) -> Job:
        if job_id == "undecided":
            raise StoreUnavailable
        if job_id != ID:
            raise JobNotFound(job_id)
        return job_with_files()

    place.uploads.sweep(stored)
    assert place.waiting() == ["undecided"]
    assert place.found(place.data / "jobs" / ID / "attachments") == {"a.txt": "1"}


def test_nothing_to_sweep_is_no_error(tmp_path: Path) -> None:
    Uploads(tmp_path, max_bytes=1, min_free_bytes=0).sweep(lambda _: a_job())
    assert JobSpec().attachments == ()
