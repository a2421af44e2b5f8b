"""Huey with SQLite: `peer_huey.py DIRECTORY AT_ONCE JOBS COMMAND...`, run by the peers' own Python."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

from huey import SqliteHuey  # type: ignore[import-not-found]


def main() -> None:
    directory, at_once, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    command = sys.argv[4:]
    huey = SqliteHuey(filename=f"{directory}/huey.db")
    done = threading.Semaphore(0)

    @huey.task()  # type: ignore[untyped-decorator]
    def job(number: int) -> int:
        with open(f"{directory}/out.{number}", "wb") as out:
            code = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False)
        done.release()
        return code.returncode

    logging.getLogger("huey").setLevel(logging.ERROR)
    consumer = huey.create_consumer(workers=at_once, worker_type="thread", initial_delay=0.01, max_delay=0.01)
    consumer.start()
    begun = time.perf_counter()
    for number in range(jobs):
        job(number)
    for _ in range(jobs):
        if not done.acquire(timeout=100):
            sys.exit("a job is missing")
    print(jobs / (time.perf_counter() - begun))
    consumer.stop(graceful=True)


main()
