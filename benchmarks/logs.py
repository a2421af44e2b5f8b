"""The log: writing it through the shim, downloading it, following it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.load import Connection, json_body, percentile
from benchmarks.load import run as run_loop
from benchmarks.rows import Row, absent, compared, limited
from benchmarks.service import Service, environment
from runner.backends.local import LocalBackend
from runner.ports import Command, Ended, Handle, LaunchRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.rows import Options

GIB: Final = 2**30
_BLOCK_BYTES: Final = 4096
_RECEIVE_BYTES: Final = 2**20
_TIME_LIMIT_S: Final = 120.0
_TICK_S: Final = 0.025
_TICK: Final = re.compile(rb"tick ([0-9]{19})\n")
_LAST_CHUNK: Final = b"0\r\n\r\n"
_TICKS: Final = """
import sys, time

for _ in range(int(sys.argv[1])):
    time.sleep(%g)
    print("tick", time.time_ns(), flush=True)
"""
_TICKS_SNAKEFILE: Final = """
rule ticks:
    output: "done.txt"
    params: ticks=config["ticks"]
    shell: "{python} -I -S ticks.py {{params.ticks}} && echo done > {{output}}"
"""


def run(options: Options) -> list[Row]:
    return [*_capture(options), *_download(options), *_follow(options)]


# ---------------------------------------------------------------- capture


def _capture(options: Options) -> list[Row]:
    size, rounds = (GIB // 8, 2) if options.quick else (GIB, 5)
    through, direct = [], []
    for number in range(rounds):
        direct.append(size / _write_directly(options.directory / "direct", size))
        through.append(size / _write_through_shim(options.directory / f"capture{number}", size))
    return [
        compared(
            f"capture of {size // 2**20} MiB in 4 KiB writes",
            statistics.median(through) / 1e6,
            "MB/s",
            "writing the file directly",
            statistics.median(direct) / 1e6,
            at_least=0.8,
        )
    ]


def _writer(size: int) -> list[str]:
    return ["/bin/dd", "if=/dev/zero", f"bs={_BLOCK_BYTES}", f"count={size // _BLOCK_BYTES}", "status=none"]


def _write_directly(path: Path, size: int) -> float:
    with path.open("wb") as file:
        begun = time.perf_counter()
        subprocess.run(_writer(size), stdout=file, check=True, timeout=_TIME_LIMIT_S)
        seconds = time.perf_counter() - begun
    path.unlink()
    return seconds


def _write_through_shim(directory: Path, size: int) -> float:
    """The attempt's own time, from its start to its recorded end."""
    source = directory / "source"
    source.mkdir(parents=True)
    backend = LocalBackend(
        data_dir=str(directory / "data"),
        python=sys.executable,
        warm=lambda: None,
        log_limit_bytes=2 * GIB,
        stop_grace_s=1.0,
        open_files=1024,
    )
    backend.start()
    try:
        handle = Handle("capture", 1)
        command = Command(argv=tuple(_writer(size)), environment={}, title="writer")
        backend.launch(LaunchRequest(handle, command, source, _TIME_LIMIT_S))
        deadline = time.monotonic() + _TIME_LIMIT_S
        while time.monotonic() < deadline:
            for _, seen in backend.wait(1.0):
                if isinstance(seen, Ended):
                    if seen.record.exit_code != 0 or seen.record.log_bytes != size:
                        raise RuntimeError(f"the capture went wrong: {seen.record}")
                    return seen.record.ended_at - seen.record.started_at
    finally:
        backend.close()
        for segment in directory.rglob("log.*"):
            segment.unlink()
    raise RuntimeError("the capture did not end in time")


# ---------------------------------------------------------------- download


def _download(options: Options) -> list[Row]:
    size, rounds = (GIB // 8, 3) if options.quick else (GIB, 7)
    ours, limit = [], []
    plain = options.directory / "plain"
    with plain.open("wb") as file:
        subprocess.run(_writer(size), stdout=file, check=True, timeout=_TIME_LIMIT_S)
    with Service(options.directory / "download", LOG_LIMIT_MB="2048") as service:
        with service.client() as client:
            job = client.submit("demo", parameters={"mock": {"seconds": 0, "output_bytes": size}})
            client.wait(job.id, timeout_s=_TIME_LIMIT_S)
        with _sendfile(plain) as address:
            for _ in range(rounds):
                ours.append(_rate_of(service.address, f"/jobs/{job.id}/logs", size))
                limit.append(_rate_of(address, "/", size))
    plain.unlink()
    rate = statistics.median(ours)
    target = "download of the whole log"
    return [
        limited(target, rate / 1e6, "MB/s", at_least=1500),
        compared(
            target, rate / 1e6, "MB/s", "blocking sendfile", statistics.median(limit) / 1e6, at_least=0.7
        ),
    ]


def _rate_of(address: tuple[str, int], path: str, at_least_bytes: int) -> float:
    """Bytes per second of one download over a plain blocking socket."""
    buffer = bytearray(_RECEIVE_BYTES)
    with socket.create_connection(address, timeout=_TIME_LIMIT_S) as connection:
        begun = time.perf_counter()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        received = 0
        while count := connection.recv_into(buffer):
            received += count
        seconds = time.perf_counter() - begun
    if received < at_least_bytes:
        raise RuntimeError(f"only {received} bytes came from {path}")
    return received / seconds


@contextmanager
def _sendfile(path: Path) -> Iterator[tuple[str, int]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_sendfile", str(path)],
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.terminate()


# ---------------------------------------------------------------- follow


def _follow(options: Options) -> list[Row]:
    if not options.snakemake.exists():
        return [absent("follow (a real rule that writes)", "make snakemake-env")]
    ticks = 100 if options.quick else 400
    folder = options.directory / "workflows/ticks"
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(_TICKS_SNAKEFILE.format(python=sys.executable))
    (folder / "ticks.py").write_text(_TICKS % _TICK_S)
    rows = []
    with Service(
        options.directory / "follow",
        ENGINE="snakemake",
        SNAKEMAKE=str(options.snakemake),
        WORKFLOWS_DIR=str(options.directory / "workflows"),
    ) as service:
        for followers in (1, 64):
            latencies = run_loop(_follow_ticks(service.address, ticks, followers))
            what = f"follow, {followers} at once"
            rows.append(limited(f"{what}: p50", percentile(latencies, 50) * 1000, "ms", at_most=5))
            rows.append(Row(f"{what}: p99", percentile(latencies, 99) * 1000, "ms"))
    return rows


async def _follow_ticks(address: tuple[str, int], ticks: int, followers: int) -> list[float]:
    """From the moment a line is written to the moment a follower has it."""
    latencies: list[float] = []

    async def follow(path: str) -> None:
        async with Connection(address) as connection:
            await connection.head("GET", path)
            rest, seen = b"", 0
            while seen < ticks and (piece := await connection.reader.read(65536)):
                now_ns = time.time_ns()
                rest += piece
                told = 0
                for match in _TICK.finditer(rest):
                    latencies.append((now_ns - int(match[1])) / 1e9)
                    seen += 1
                    told = match.end()
                if rest.endswith(_LAST_CHUNK):
                    break
                rest = rest[told:][-64:]  # a line may come in two pieces
            if seen < ticks:
                raise RuntimeError(f"a follower saw {seen} of {ticks} lines")

    async with Connection(address) as connection, asyncio.timeout(_TIME_LIMIT_S):
        body = json_body(workflow="ticks", parameters={"ticks": ticks})
        _, answer = await connection.request("POST", "/jobs", body)
        job = json.loads(answer)
        async with asyncio.TaskGroup() as group:
            for _ in range(followers):
                group.create_task(follow(f"/jobs/{job['id']}/logs?follow=true"))
        while job["completed_at"] is None:
            _, answer = await connection.request("GET", f"/jobs/{job['id']}?wait=5")
            job = json.loads(answer)
        if job["status"] != "completed":
            raise RuntimeError(f"the rule {job['status']}: {job['error_message']}")
    return latencies
