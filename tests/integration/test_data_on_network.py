"""A data directory on a network file system works, and whoever runs the service is told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runner import checkup, network_mounts
from runner.bootstrap import build_runner
from tests.support.runners import settings_for
from tests.support.server import running_server

if TYPE_CHECKING:
    from pathlib import Path


def on_nfs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's table of mounts, with one more line."""
    table = data_dir.parent / "mountinfo"
    with open(network_mounts.MOUNTS) as real:
        table.write_text(f"{real.read()}999 1 0:99 / {data_dir} rw,relatime - nfs4 server:/ rw\n")
    monkeypatch.setattr(network_mounts, "MOUNTS", str(table))


def told_at_start(data_dir: Path) -> list[str]:
    with capture_logs() as lines:
        build_runner(settings_for(data_dir)).close()
    return [f"{line['log_level']} {line['kind']}" for line in lines if line["event"] == "data.on_network"]


def test_the_start_and_the_check_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    assert told_at_start(data_dir) == []
    [data] = [found for found in checkup.check(settings_for(data_dir)) if found.name == "data"]
    assert (data.ok, data.detail) == (True, str(data_dir))

    on_nfs(data_dir, monkeypatch)
    assert told_at_start(data_dir) == ["warning nfs4"]
    [data] = [found for found in checkup.check(settings_for(data_dir)) if found.name == "data"]
    assert data.ok
    assert "is on a network file system (nfs4). A local disk is better" in data.detail


@pytest.mark.skipif(shutil.which("strace") is None, reason="failing a system call needs strace")
def test_jobs_run_where_the_calls_that_nfs_has_not_are_refused(tmp_path: Path) -> None:
    # NFS 4.1 keeps no room for a file and copies none by itself (both came with 4.2); nor does EFS.
    trace, calls = tmp_path / "trace", ("fallocate", "copy_file_range")
    refused = [word for call in calls for word in ("-e", f"inject={call}:error=EOPNOTSUPP")]
    # -D: the service is our child, and takes our signals.
    strace = (
        "strace",
        "-D",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-o",
        str(trace),
        "-e",
        f"trace={','.join(calls)}",
        *refused,
    )
    with running_server(tmp_path, through=strace) as server:
        job = server.client.post("/jobs", json={"workflow": "demo"}).json()
        ended = server.client.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
        while ended["status"] in ("pending", "running"):
            ended = server.client.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
        assert (ended["status"], ended["exit_code"]) == ("completed", 0)
        assert server.client.get(f"/jobs/{job['id']}/logs").text
        assert server.client.delete(f"/jobs/{job['id']}").status_code == 204
    assert [call for call in calls if f"{call}(" not in trace.read_text()] == []
    assert "INJECTED" in trace.read_text()
