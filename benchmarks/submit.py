"""`POST /jobs`, durable before the answer, against the same models with nothing behind them."""

from __future__ import annotations

import statistics
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.load import Load, json_body, requests
from benchmarks.load import run as run_loop
from benchmarks.rows import Row, compared, limited
from benchmarks.service import Service, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.rows import Options

CONNECTIONS: Final = 32
BODY: Final = json_body(
    workflow="demo", parameters={"mock": {"seconds": 600}}, name="sample 7", labels={"project": "atlas"}
)


def run(options: Options) -> list[Row]:
    rounds, total = (1, 1000) if options.quick else (5, 4000)
    durable, bare, memory = [], [], []
    with (
        # One core, held by the first job: the others stay pending, so that only submitting is measured.
        Service(options.directory / "durable", MAX_CORES="1", MAX_PENDING="1000000") as service,
        Service(
            options.directory / "memory", MAX_CORES="1", MAX_PENDING="1000000", DATABASE_URL="memory://"
        ) as in_memory,
        _bare() as bare_address,
    ):
        for address in (service.address, in_memory.address, bare_address):
            _post(address, 200)
        for _ in range(rounds):
            durable.append(_post(service.address, total))
            bare.append(_post(bare_address, total))
            memory.append(_post(in_memory.address, total))
    with Service(options.directory / "busy", MAX_CORES="100", MAX_PENDING="1000000") as busy:
        _post(busy.address, 300)
        with busy.client() as client:
            running = len(client.list(status=("running",), limit=500).items)
        while_busy = [_post(busy.address, total) for _ in range(rounds)]
    rate = _median_rate(durable)
    print(f"  the load client used {max(load.client_cpu for load in bare):.0%} of a core", flush=True)
    return [
        compared(
            "durable POST /jobs",
            rate,
            "requests/s",
            "same models, nothing behind",
            _median_rate(bare),
            at_least=0.8,
        ),
        compared("durable POST /jobs", rate, "requests/s", "same service, memory://", _median_rate(memory)),
        compared("p50", _median_ms(durable, 50), "ms", "same models, nothing behind", _median_ms(bare, 50)),
        compared("p99", _median_ms(durable, 99), "ms", "same models, nothing behind", _median_ms(bare, 99)),
        Row(f"p50 while {running} jobs run", _median_ms(while_busy, 50), "ms"),
        limited(f"p99 while {running} jobs run", _median_ms(while_busy, 99), "ms", at_most=50),
    ]


def _post(address: tuple[str, int], total: int) -> Load:
    return run_loop(
        requests(address, "POST", "/jobs", connections=CONNECTIONS, total=total, body=lambda _: BODY)
    )


def _median_rate(loads: list[Load]) -> float:
    return statistics.median(load.per_second for load in loads)


def _median_ms(loads: list[Load], percent: float) -> float:
    return statistics.median(load.percentile_ms(percent) for load in loads)


@contextmanager
def _bare() -> Iterator[tuple[str, int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_submit"],
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield "127.0.0.1", int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
