"""A process that adds jobs to a store, one at a time, and tells of each whether it was stored.

    store_driver.py URL LIMIT [--die] [--readers] [--no-burial]

`--die`: SIGKILL to itself at the first failure, before anything else is written. `--readers`: connections
that only read are open meanwhile, as they are in a service. `--no-burial`: a transaction whose COMMIT
failed stays in the log, as when nothing more can be written to it. It ends after LIMIT jobs.
"""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime

from runner.jobs import Job, JobSpec, JobStatus
from runner.stores.sql import SqlStore
from runner.stores.sql.writer import Writer


def main(url: str, limit: int, *, die: bool, readers: bool) -> None:
    store = SqlStore.open(url)
    _tell("open")
    if readers:
        store.counts()
    for number in range(limit):
        now = datetime.now(UTC)
        spec = JobSpec(name=f"job {number}", labels={"number": str(number)})
        job = Job(f"job-{number}", spec, JobStatus.PENDING, "mock", now, now)
        error = store.add(job).exception()
        _tell("failed" if error else "stored", job.id)
        if error and die:
            signal.raise_signal(signal.SIGKILL)
    store.close()


def _tell(*words: str) -> None:
    sys.stdout.write(f"{' '.join(words)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if "--no-burial" in sys.argv:
        setattr(Writer, "_bury", lambda *_: None)  # noqa: B010 - a method for mypy
    main(sys.argv[1], int(sys.argv[2]), die="--die" in sys.argv, readers="--readers" in sys.argv)
