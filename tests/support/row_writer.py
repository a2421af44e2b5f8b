"""Adds jobs to the store of a directory without end, and says the id of each once it is acknowledged."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from runner.errors import StoreUnavailable
from runner.stores.sql import SqlStore
from tests.support.stores import a_job, added, store_url


def main() -> None:
    store = SqlStore.open(store_url(Path(sys.argv[1])))  # made here: its first sync is of interest
    with suppress(StoreUnavailable):  # the power was cut
        while True:
            job = added(store, a_job(job_id=str(uuid4())))
            os.write(1, f"{job.id}\n".encode())


if __name__ == "__main__":
    main()
