"""HyperQueue on one machine: `peer_hyperqueue.py DIRECTORY AT_ONCE JOBS COMMAND...`, by the peers' Python."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster  # type: ignore[import-not-found]
from hyperqueue.cluster import WorkerConfig  # type: ignore[import-not-found]


def main() -> None:
    directory, at_once, jobs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    command = sys.argv[4:]
    os.chdir(directory)
    with LocalCluster(str(directory / "server"), WorkerConfig(cores=at_once)) as cluster:
        client = cluster.client()
        begun = time.perf_counter()
        job = Job(directory)
        for number in range(jobs):
            job.program(command, stdout=f"{directory}/out.{number}", stderr=f"{directory}/err.{number}")
        submitted = client.submit(job)
        client.wait_for_jobs([submitted])
        print(jobs / (time.perf_counter() - begun))


main()
