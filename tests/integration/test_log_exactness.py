"""The log through the whole service: byte for byte what the job wrote, in whole and in any part."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

from tests.support.byte_writer import BYE_BYTES, installed, line, mixed
from tests.support.runners import Hold
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.server import LiveServer

MIB = 2**20
GAP_LIMIT_BYTES = MIB
ENDS_WITHIN_S = 8.0
"""Two seconds of grace for what a job leaves running, five to kill it, and the recording."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service that keeps 2 GiB of a log."""
    directory = tmp_path_factory.mktemp("exact")
    with running_server(
        directory,
        **installed(str(directory)),
        MAX_CORES="8",
        STOP_GRACE_S="1",
        LOG_LIMIT_MB="2048",
        DATABASE_URL="memory://",
    ) as own:
        yield own


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service that keeps 1 MiB of a log."""
    directory = tmp_path_factory.mktemp("short")
    with running_server(
        directory,
        **installed(str(directory)),
        MAX_CORES="8",
        LOG_LIMIT_MB=str(GAP_LIMIT_BYTES / MIB),
        DATABASE_URL="memory://",
    ) as own:
        yield own


def submit(service: LiveServer, *acts: str) -> str:
    job_id: str = service.client.submit(workflow="bytes", parameters={"acts": acts})["id"]
    return job_id


def run(service: LiveServer, *acts: str, timeout_s: float = 30) -> tuple[dict[str, Any], str]:
    """The ended job, and the address of its log."""
    job = service.client.wait_for(submit(service, *acts), timeout_s=timeout_s)
    return job, f"/jobs/{job['id']}/logs"


def written(service: LiveServer, job_id: str) -> dict[str, Any]:
    """What the job itself says it has written."""
    path = service.data_dir / "jobs" / job_id / "work/written.json"
    noted: dict[str, Any] = json.loads(path.read_text())
    return noted


class Download(NamedTuple):
    size: int
    sha256: str


def download(service: LiveServer, url: str) -> Download:
    digest, size = hashlib.sha256(), 0
    with service.client.stream("GET", url, timeout=120) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_bytes(MIB):
            digest.update(piece)
            size += len(piece)
    return Download(size, digest.hexdigest())


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_text_are_told_exactly_and_live(
    service: LiveServer, tmp_path: Path, seed: int
) -> None:
    content = mixed(MIB, seed)
    hold = Hold(tmp_path)
    job_id = submit(service, f"wait:{hold.path}", f"mixed:{MIB}:{seed}")
    url = f"/jobs/{job_id}/logs"
    service.client.wait_for(job_id, "running")
    with service.client.stream("GET", f"{url}?follow=true") as answer:
        pieces = answer.iter_raw()
        releasing = threading.Thread(target=hold.release)
        releasing.start()
        followed = b"".join(pieces)
        releasing.join()
    assert followed == content
    assert service.client.get(url).content == content
    assert service.client.job(job_id)["status"] == "completed"


@pytest.mark.parametrize("size", [64 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.soak)])
def test_one_line_without_an_end_is_exact_however_long(
    service: LiveServer, tmp_path: Path, size: int, record_property: Any
) -> None:
    hold = Hold(tmp_path)
    job_id = submit(service, f"wait:{hold.path}", f"line:{size}")
    url = f"/jobs/{job_id}/logs"
    service.client.wait_for(job_id, "running")
    followed: list[Download] = []
    follower = threading.Thread(target=lambda: followed.append(download(service, f"{url}?follow=true")))
    follower.start()
    hold.release()
    job = service.client.wait_for(job_id, timeout_s=100)
    follower.join(100)
    assert job["status"] == "completed"
    wrote = written(service, job_id)
    exact = Download(size, wrote["sha256"])
    assert wrote["bytes"] == size
    assert download(service, url) == exact
    assert followed == [exact]
    assert download(service, f"{url}?tail=1") == exact
    peak_bytes = _peak_bytes(service)
    assert peak_bytes < 300 * MIB, "the service held the log in memory"
    numbers = (
        f"a line of {size // MIB} MiB: 3 answers exact, the service took {peak_bytes // MIB} MiB at most"
    )
    record_property("line", numbers)
    print(numbers)  # noqa: T201 - told with -rA


def _peak_bytes(service: LiveServer) -> int:
    with open(f"/proc/{service.process.pid}/status", encoding="ascii") as status:
        return next(int(row.split()[1]) * 1024 for row in status if row.startswith("VmHWM"))


def test_any_range_of_a_whole_log_is_exact(service: LiveServer) -> None:
    size = 3 * MIB + 77
    _, url = run(service, f"line:{size}")
    content = line(0, size)
    chosen = random.Random(1)
    with_both = [sorted(chosen.choices(range(size), k=2)) for _ in range(40)]
    around = [(MIB * n + d, MIB * n + d + k) for n in (1, 2) for d in (-1, 0, 1) for k in (0, 1, MIB)]
    for first, last in [*with_both, *around, (0, 0), (0, size - 1), (size - 1, size + 10)]:
        answer = service.client.get(url, headers={"Range": f"bytes={first}-{last}"})
        assert answer.status_code == 206
        assert answer.content == content[first : last + 1]
        assert answer.headers["content-range"] == f"bytes {first}-{min(last, size - 1)}/{size}"
    for length in (1, 4096, MIB + 1, size, size + 1, *chosen.choices(range(1, size), k=10)):
        answer = service.client.get(url, headers={"Range": f"bytes=-{length}"})
        assert answer.content == content[-length:]
    for first in chosen.choices(range(size), k=10):
        answer = service.client.get(url, headers={"Range": f"bytes={first}-"})
        assert answer.content == content[first:]
    for outside in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        assert service.client.get(url, headers={"Range": outside}).status_code == 416


def test_any_part_of_a_log_that_lost_its_middle_is_exact(short: LiveServer) -> None:
    size = 5 * MIB + 123
    _, url = run(short, f"line:{size}")
    head = short.client.head(url).headers
    start, end = map(int, head["x-log-skipped"].split("-"))
    assert int(head["x-log-size"]) == size
    assert 0 < start < end < size
    assert start + size - end <= GAP_LIMIT_BYTES
    content = line(0, size)
    chosen = random.Random(2)
    interesting = [0, 1, start - 1, start, start + 1, end - 1, end, end + 1, size - 1]
    pairs = [sorted(chosen.choices(range(size), k=2)) for _ in range(40)]
    pairs += [[a, b] for a in interesting for b in interesting if a <= b]
    for first, last in pairs:
        kept_first = end if start <= first < end else first
        kept_end = min(last + 1, start) if first < start else last + 1
        answer = short.client.get(url, headers={"Range": f"bytes={first}-{last}"})
        part = short.client.get(f"{url}?offset={first}&limit={last + 1 - first}")
        assert part.status_code == 200
        offset, following = int(part.headers["x-log-offset"]), int(part.headers["x-log-next-offset"])
        assert offset == kept_first
        assert part.content == content[offset:following]
        assert len(part.content) <= last + 1 - first
        assert part.content
        if kept_first >= kept_end:
            assert answer.status_code == 416
            continue
        assert answer.headers["content-range"] == f"bytes {kept_first}-{kept_end - 1}/{size}"
        assert answer.content == content[kept_first:kept_end]
    whole = short.client.get(url).content
    marker = b"\n[snakeline: %d bytes skipped]\n" % (end - start)
    assert whole == content[:start] + marker + content[end:]


def test_the_last_lines_are_those_that_end_in_a_newline_whatever_else_is_in_them(service: LiveServer) -> None:
    content = mixed(300_000, 9) + b"\nthe last one, unfinished"
    _, url = run(service, "mixed:300000:9", f"text:{chr(10)}the last one, unfinished")
    lines = content.split(b"\n")
    for count in (1, 2, 3, 50, 1000, len(lines) - 1, len(lines), len(lines) + 5):
        answer = service.client.get(f"{url}?tail={count}")
        assert answer.content == b"\n".join(lines[-count:]), count


def test_daemons_that_keep_the_output_open_hold_up_nothing(
    service: LiveServer, short: LiveServer, tmp_path: Path
) -> None:
    # Several polite ones: whether their last bytes come after the shim's last look is a matter of luck.
    kinds = [*["polite"] * 5, "silent", "chatty", "flooding"]
    jobs: list[tuple[str, LiveServer, Hold, str]] = []
    for number, kind in enumerate(kinds):
        own, hold = short if kind == "flooding" else service, Hold(tmp_path, f"hold-{number}")
        acts = ("line:3000000", f"daemon:{kind}", f"wait:{hold.path}", "line:1000003", "exit:7")
        jobs.append((kind, own, hold, submit(own, *acts)))
    for _, _, hold, _ in jobs:
        hold.release()
    released = time.monotonic()
    for kind, own, _, job_id in jobs:
        job = own.client.wait_for(job_id)
        assert time.monotonic() - released < ENDS_WITHIN_S
        assert (job["status"], job["exit_code"]) == ("failed", 7)
        assert job["error_message"] is not None
        assert len(job["error_message"]) <= 16_384
        assert not _processes_of(job_id)
        if kind == "flooding":
            continue  # nobody can tell which of its bytes were dropped
        log = own.client.get(f"/jobs/{job_id}/logs").content
        assert log.replace(b"\xff", b"") == line(0, 3_000_000) + line(0, 1_000_003), kind
        # What the engine left behind may still say what it has to say.
        if kind == "polite":
            assert log.count(b"\xff") == BYE_BYTES
        else:
            assert (b"\xff" in log) == (kind == "chatty")


FILL = """
import os
zeros = bytes(65536)
while True:
    try:
        os.write(1, zeros)
    except BlockingIOError:
        pass
"""


def test_an_output_that_another_process_goes_on_filling_holds_up_nothing(
    short: LiveServer, tmp_path: Path
) -> None:
    """The job has handed it to a process that is none of its own, and will not be ended with it."""
    hold = Hold(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        job_id = submit(short, f"give:{tmp_path / 'socket'}", f"wait:{hold.path}", "exit:3")
        connection, _ = listener.accept()
        with connection:
            _, (output,), _, _ = socket.recv_fds(connection, 1, 1)
    os.set_blocking(output, False)  # so that they never sleep
    fill = [sys.executable, "-I", "-S", "-c", FILL]
    fillers = [subprocess.Popen(fill, stdout=output, stderr=subprocess.DEVNULL) for _ in range(3)]
    os.close(output)
    try:
        hold.release()
        began = time.monotonic()
        job = short.client.wait_for(job_id)
        assert time.monotonic() - began < ENDS_WITHIN_S
        assert job["exit_code"] == 3
    finally:
        for filler in fillers:
            filler.kill()
            filler.wait()


def _processes_of(job_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SNAKELINE_JOB_ID") == job_id:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_reader_that_is_slow_loses_nothing(service: LiveServer, tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    size = 8 * MIB
    job_id = submit(service, f"line:{size}", f"wait:{hold.path}", "mixed:1000:4")
    service.client.wait_for(job_id, "running")
    got = b""
    with service.client.stream("GET", f"/jobs/{job_id}/logs?follow=true&offset=5") as answer:
        pieces = answer.iter_raw(65_536)
        got += next(pieces)
        hold.release()  # the job ends while most of its log is still to be read
        wait_until(lambda: service.client.job(job_id)["completed_at"], what="the job to end")
        got += b"".join(pieces)
    assert got == line(5, size - 5) + mixed(1000, 4)
