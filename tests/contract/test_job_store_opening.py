"""What the durable store promises when it is opened: migrations, foreign and damaged files, bad places."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from runner.errors import StoreUnavailable
from runner.stores.sql import SqlStore, sqlite
from runner.stores.sql.schema import METADATA, REVISION
from tests.support.stores import added, store_url

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).parents[2]


def refused(url: str) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        SqlStore.open(url)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


def test_a_store_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    text = refused(store_url(tmp_path))
    assert "newer Snakeline" in text
    assert "9999" in text
    assert REVISION in text


@pytest.mark.parametrize("content", [b"this is no database at all, " * 100, b"\0" * 8192])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "snakeline.db"
    file.write_bytes(content)
    assert "not a database" in refused(store_url(tmp_path))
    assert file.read_bytes() == content


def test_a_truncated_database_is_refused(tmp_path: Path) -> None:
    SqlStore.open(store_url(tmp_path)).close()
    file = tmp_path / "snakeline.db"
    file.write_bytes(file.read_bytes()[: 4096 * 3])
    assert "damaged" in refused(store_url(tmp_path))


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "snakeline.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE jobs (id)")
    content = file.read_bytes()
    assert "another program" in refused(store_url(tmp_path))
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    assert "no directory" in refused(f"sqlite:///{tmp_path}/missing/snakeline.db")
    assert "writable" in refused("sqlite:////proc/self/snakeline.db")
    assert refused(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:secret@h/d",
        "postgresql+psycopg://u:secret@h/d",
    ],
)
def test_a_url_that_names_no_file_is_refused_without_telling_its_secrets(url: str) -> None:
    assert "secret" not in refused(url)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "snakeline.db").touch()
    store = SqlStore.open(store_url(tmp_path))
    added(store)
    store.close()


def test_a_path_with_odd_characters_is_taken_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "a b%20c #1?x=y é"
    directory.mkdir()
    file = sqlite.SqliteFile(str(directory / "s.db"))
    with closing(file.open(create=True)) as connection:
        connection.execute("CREATE TABLE t (a)")
    assert [path.name for path in directory.iterdir()] == ["s.db"]


def test_several_services_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: SqlStore.open(store_url(tmp_path)), range(4)))
    job = added(stores[0])
    for store in stores:
        assert store.get(job.id) == job
        store.close()


def test_a_fresh_store_that_another_is_just_making_is_waited_for(tmp_path: Path) -> None:
    file = sqlite.SqliteFile(str(tmp_path / "s.db"))
    with closing(file.open(create=True)) as other, ThreadPoolExecutor(1) as threads:
        other.execute("CREATE TABLE t (a)")
        other.execute("BEGIN IMMEDIATE")  # which the change to a write-ahead log does not wait for by itself
        opening = threads.submit(file.connect)
        wait([opening], timeout=0.2)
        assert not opening.done()
        other.execute("COMMIT")
        opening.result(10).close()


def test_a_failed_migration_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("alembic.command.upgrade", _upgrade_and_fail)
        with pytest.raises(ZeroDivisionError):
            SqlStore.open(store_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "snakeline.db")) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    store = SqlStore.open(store_url(tmp_path))
    added(store)
    store.close()


def _upgrade_and_fail(config: object, revision: str) -> None:
    scripts = ScriptDirectory.from_config(config)  # type: ignore[arg-type]
    assert scripts.get_current_head() == REVISION
    connection = config.attributes["connection"]  # type: ignore[attr-defined]
    connection.exec_driver_sql("CREATE TABLE half (done)")
    raise ZeroDivisionError


def test_the_migrations_make_the_tables_that_the_statements_are_written_for(tmp_path: Path) -> None:
    def schema(path: Path) -> dict[str, str]:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {
            # A column that was added later stands in other white space.
            name: re.sub(r" ([,)])", r"\1", " ".join(sql.split()))
            for name, sql in rows
            if not name.startswith(("job_names", "alembic_", "sqlite_"))
        }

    SqlStore.open(store_url(tmp_path)).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/metadata.db")
    METADATA.create_all(engine)
    engine.dispose()
    assert schema(tmp_path / "snakeline.db") == schema(tmp_path / "metadata.db")


def test_an_installed_package_finds_its_migrations_and_reads_no_ini_file(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "runner", site / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "alembic.ini").write_text(
        "[alembic]\nscript_location = /nowhere\n[loggers]\nkeys = nonsense\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.alembic]\nscript_location = "/nowhere"\n')
    script = (
        f"import sys, logging; sys.path.insert(0, {str(site)!r})\n"
        "from runner.stores.sql import SqlStore\n"
        "import runner; assert runner.__path__[0].startswith(sys.path[0]), runner.__path__\n"
        f"SqlStore.open({store_url(tmp_path)!r}).close()\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger('alembic').level == logging.NOTSET\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "snakeline.db").exists()


def test_the_tables_name_no_database_whose_driver_a_start_would_import() -> None:
    named = {
        option for table in METADATA.tables.values() for index in table.indexes for option in index.kwargs
    }
    assert named == {"sqlite_where"}
