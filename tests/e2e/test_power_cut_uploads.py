"""What a job is to run, and what it brought, is on the disk when the job was accepted."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from snakeline.client import Client, Problem
from tests.support.power_cut import PowerCutDisk
from tests.support.server import LiveServer, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

SNAKEFILE = 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "disk") as disk:
        yield disk


def test_accepted_jobs_have_their_files_and_their_version_after_the_power_was_cut(
    disk: PowerCutDisk, tmp_path: Path
) -> None:
    folder = tmp_path / "workflows" / "one"
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "large.bin").write_bytes(b"as submitted" * 10_000)
    shutil.copytree(folder, folder.with_name("two"))
    (folder / "README.md").write_text("another version")
    (tmp_path / "reads.txt").write_text("ACGT" * 10_000)
    settings = {"WORKFLOWS_DIR": str(folder.parent), "WORKFLOW_UPLOADS": "on", "MAX_CORES": "1"}
    server = LiveServer(disk.folder, settings)
    with Client(server.url) as client:
        first = client.submit("one", parameters={"mock": {"seconds": 60}})
        brought = client.submit(
            "uploaded", files=[tmp_path / "reads.txt"], workflow_file=folder / "Snakefile"
        )
        waiting = client.submit("two")  # after the other, which has synced all that was there by then
    disk.cut()
    disk.restore()
    server.client.close()
    server.process.wait(10)
    (folder.with_name("two") / "large.bin").write_bytes(b"changed since")
    with running_server(disk.folder, **settings) as again, Client(again.url) as client:
        with suppress(Problem):  # it may be lost, or be started now
            client.cancel(first.id)
        assert client.wait(waiting.id, timeout_s=30).status == "completed"
        assert client.wait(brought.id, timeout_s=30).status == "completed"
        work = again.data_dir / "jobs"
        assert (work / waiting.id / "work" / "large.bin").read_bytes() == b"as submitted" * 10_000
        assert (work / brought.id / "work" / "input" / "reads.txt").read_text() == "ACGT" * 10_000
        assert (work / brought.id / "work" / "Snakefile").read_text() == SNAKEFILE
