"""Stores of earlier revisions as SQL: written by that revision's own program, kept in `tests/stores`.

`python -m tests.support.store_dumps REVISION` runs that program on a new data directory and writes
`tests/stores/REVISION.sql`.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.releases import ROOT, Installation
from tests.support.server import LiveServer, service_environment
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DUMPS: Final = ROOT / "tests" / "stores"


def load(dump: Path, store: Path) -> None:
    """Make the store that was dumped."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.executescript(dump.read_text())


def dump(store: Path) -> Iterator[str]:
    """All of the store, one statement a line: what `sqlite3 store .dump` says, with the pragmas."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        yield f"PRAGMA application_id = {connection.execute('PRAGMA application_id').fetchone()[0]};"
        yield "PRAGMA writable_schema = ON;"
        yield "BEGIN;"
        made = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL "
            "ORDER BY type = 'index', name = 'sqlite_sequence' DESC, rowid"
        ).fetchall()
        for kind, name, sql in made:
            if name == "sqlite_sequence":  # comes with the first table that needs it
                continue
            if sql.startswith("CREATE VIRTUAL TABLE"):  # its tables are there by themselves
                quoted = connection.execute("SELECT quote(?)", (sql,)).fetchone()[0]
                yield (
                    "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) "
                    f"VALUES ('table', '{name}', '{name}', 0, {quoted});"
                )
                continue
            yield f"{' '.join(sql.split())};"
            if kind == "table":
                yield from _rows(connection, name)
        yield "DELETE FROM sqlite_sequence;"
        yield from _rows(connection, "sqlite_sequence")
        yield "COMMIT;"
        yield "PRAGMA writable_schema = RESET;"


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info('{table}')")]
    values = " || ',' || ".join(f'quote("{column}")' for column in columns)
    for (row,) in connection.execute(f"SELECT {values} FROM '{table}'"):
        yield f"INSERT INTO '{table}' VALUES ({row});"


def _fill(server: LiveServer, gates: Path) -> None:
    """Jobs of every status, with all that a submission can say; the held ones run on."""
    client = server.client
    held = {"mock": {"hold": str(gates / "never")}}
    full = {"name": "Grüße aus dem Labor", "labels": {"project": "ä-1", "run": "7"}, "priority": 3}
    done = client.run(**full, targets=["report"], parameters={"count": 7, "mock": {"lines": 3}})
    assert done["status"] == "completed", done
    client.run(workflow="demo", parameters={"mock": {"exit_code": 7}}, max_retries=1, labels={"run": "7"})
    client.run(name="short", parameters={"mock": {"signal": 9}}, timeout_s=60)
    cancelled = client.submit(name="cancelled", parameters=held)["id"]
    client.wait_for(cancelled, "running")
    client.post(f"/jobs/{cancelled}/cancel")
    client.wait_for(cancelled, "cancelled")
    client.submit(name="runs", cores=2, parameters=held)
    answer = client.post("/jobs", json={"name": "waits", "cores": 2}, headers={"Idempotency-Key": "key-1"})
    assert answer.status_code == 201
    client.submit(name="urgent", cores=2, priority=9, timeout_s=3600.5, max_retries=3)
    wait_until(lambda: client.get("/jobs?status=running").json()["total"] == 1, what="one job to run")


def _add_access(base: Path, through: tuple[str, ...]) -> None:
    """A key and a quota, each with its line of the audit; by the commands of that version."""
    for arguments in (
        ["keys", "create", "--name", "lims", "--tenant", "lab"],
        ["tenants", "set", "lab", "--cores", "4"],
    ):
        command = [*through, sys.executable, "-m", "snakeline", *arguments]
        subprocess.run(command, env=service_environment({"DATA_DIR": str(base / "data")}), check=True)


def main(revision: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "gates").mkdir()
        installation = Installation(base / "site", revision)
        # The first release does not know all of a test's settings.
        through = ("/usr/bin/env", "-u", "SNAKELINE_ON_SHUTDOWN", *installation.through)
        server = LiveServer(base, {"MAX_CORES": "2"}, through=through)
        try:
            _fill(server, base / "gates")
            if revision > "0002":
                _add_access(base, through)
            server.process.kill()
            server.process.wait()
            DUMPS.mkdir(exist_ok=True)
            lines = "\n".join(dump(base / "data" / "snakeline.db")).replace(name, "/var/lib/snakeline")
            (DUMPS / f"{revision}.sql").write_text(lines + "\n")
        finally:
            server.process.kill()
            server.process.wait()
            server = LiveServer(base, {"MAX_CORES": "2"}, through=through)
            server.end_jobs()
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
