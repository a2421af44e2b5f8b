"""Jobs that bring files, in the runner: what a crash at each step leaves, quotas, retries."""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from runner import submissions, uploads
from runner.access import Quota
from runner.backends.working_directory import take_in
from runner.errors import InvalidSpec, StorageQuotaExceeded, StoreUnavailable
from runner.job_store import JobQuery
from runner.jobs import UPLOADED, JobSpec, JobStatus
from tests.support.runners import RunningRunner, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.jobs import Job
    from runner.uploads import Upload

SNAKEFILE = b'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunningRunner]:
    settings = settings_for(tmp_path / "data", workflow_uploads=True, max_attachment_bytes=2**20)
    found = RunningRunner(settings)
    yield found
    found.close()


def begun(runner: RunningRunner, spec: JobSpec) -> Upload:
    upload = runner.service.begin_upload(spec)
    for sink, content in (
        (upload.workflow_file("Snakefile"), SNAKEFILE),
        (upload.attachment("d/a.txt"), b"1"),
    ):
        sink.write(content)
        sink.close()
    return upload


def submitted(runner: RunningRunner, **mock: Any) -> Job:
    spec = JobSpec(workflow=UPLOADED, parameters={"mock": mock} if mock else {})
    upload = begun(runner, spec)
    try:
        return runner.service.submit_upload(spec, upload).job
    finally:
        upload.close()


def waiting(runner: RunningRunner) -> list[str]:
    return os.listdir(runner.settings.data_dir / "uploads")


def test_an_upload_that_was_never_submitted_is_gone_after_the_next_start(runner: RunningRunner) -> None:
    """As when the service is killed before the row is stored."""
    upload = begun(runner, JobSpec(workflow=UPLOADED))
    assert waiting(runner) == [upload.job_id]
    runner.restart()
    assert waiting(runner) == []
    assert not (runner.settings.data_dir / "jobs" / upload.job_id).exists()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_stored_job_gets_its_files_whoever_comes_to_them_first(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    """As when the service is killed after the row was stored, and before the files were the job's."""
    monkeypatch.setattr(submissions.Submissions, "_settle", lambda _self, upload, _job: upload.leave())
    if restarts:
        monkeypatch.setattr("runner.supervisor.Supervisor._claim", lambda _self: None)
    job = submitted(runner)
    if restarts:
        monkeypatch.undo()
        assert waiting(runner) == [job.id]
        runner.restart()
    assert runner.ended(job).status is JobStatus.COMPLETED
    assert (runner.work_dir(job) / "input" / "d" / "a.txt").read_text() == "1"
    assert (runner.work_dir(job) / "Snakefile").read_bytes() == SNAKEFILE
    assert waiting(runner) == []


def test_files_are_durable_before_their_job_is_stored(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int] = []
    monkeypatch.setattr(
        uploads, "sync_file_system", lambda _: stored.append(runner.service.list(JobQuery()).total)
    )
    runner.ended(submitted(runner))
    assert stored == [0]


def test_a_commit_that_was_denied_and_done_all_the_same_loses_no_file(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Denied:
        def __init__(self, future: Any) -> None:
            self._future = future

        def result(self) -> None:
            self._future.result()
            raise StoreUnavailable("it was done, but nobody knows")

    add = submissions.Submissions._add
    monkeypatch.setattr(submissions.Submissions, "_add", lambda *a, **k: Denied(add(*a, **k)))
    with pytest.raises(StoreUnavailable):
        submitted(runner)
    (job,) = runner.service.list(JobQuery()).items
    assert runner.ended(job).status is JobStatus.COMPLETED
    assert (runner.work_dir(job) / "input" / "d" / "a.txt").read_text() == "1"


def test_what_the_store_refuses_leaves_nothing(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.service._submissions, "_tenant_bytes", lambda _: 0)
    few = runner.settings.model_copy(update={"tenant_quota": Quota(max_bytes=20)})
    monkeypatch.setattr(runner.service._submissions, "_settings", few)
    with pytest.raises(StorageQuotaExceeded):
        submitted(runner)
    monkeypatch.undo()
    refused: Future[Any] = Future()
    refused.set_exception(StoreUnavailable("not now"))
    monkeypatch.setattr(submissions.Submissions, "_add", lambda *_, **__: refused)
    with pytest.raises(StoreUnavailable):
        submitted(runner)
    monkeypatch.undo()
    upload = begun(runner, JobSpec(workflow=UPLOADED))
    with pytest.raises(InvalidSpec):
        runner.service.submit_upload(JobSpec(workflow=UPLOADED, targets=("-x",)), upload)
    upload.close()
    assert waiting(runner) == []
    assert os.listdir(runner.settings.data_dir / "jobs") == []


def test_a_retry_has_what_the_first_attempt_had(runner: RunningRunner) -> None:
    job = runner.ended(submitted(runner, exit_code=1))
    assert job.status is JobStatus.FAILED
    (runner.work_dir(job) / "input" / "d" / "a.txt").write_text("changed by the job")
    runner.service.retry(job.id)
    again = runner.ended(runner.service.get(job.id))
    assert again.attempt == 2
    assert (runner.work_dir(job) / "input" / "d" / "a.txt").read_text() == "changed by the job"


def test_a_move_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    for path in ("attachments/d/b.txt", "attachments/c.txt", "work/input/d/a.txt", "work/input/own"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "attachments" / "own").write_text("not this")
    take_in(str(tmp_path / "attachments"), str(tmp_path / "work" / "input"))
    take_in(str(tmp_path / "attachments"), str(tmp_path / "work" / "input"))
    found = {p.name: p.read_text() for p in (tmp_path / "work").rglob("*") if p.is_file()}
    assert found == {
        "a.txt": "work/input/d/a.txt",
        "b.txt": "attachments/d/b.txt",
        "c.txt": "attachments/c.txt",
        "own": "work/input/own",
    }
    (tmp_path / "attachments").mkdir()
    (tmp_path / "work" / "link").symlink_to("/tmp")
    with pytest.raises(OSError, match="levels of symbolic links"):
        take_in(str(tmp_path / "attachments"), str(tmp_path / "work" / "link"))


def test_a_job_that_is_deleted_before_its_files_are_its_own_leaves_none(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = uploads.Uploads.settle

    def delete_first(self: uploads.Uploads, job: Job) -> None:
        runner.service.cancel(job.id)
        runner.ended(job)
        runner.service.delete(job.id)
        settle(self, job)

    monkeypatch.setattr("runner.supervisor.Supervisor._claim", lambda _self: None)
    monkeypatch.setattr(uploads.Uploads, "settle", delete_first)
    submitted(runner)
    assert waiting(runner) == []
    assert os.listdir(runner.settings.data_dir / "jobs") == []
