"""`snakeline upgrade`: an older store is upgraded without a start, and its copy is where one likes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from runner.backup import BackupRefused
from runner.data_dir import DataDir
from runner.errors import DataDirUnusable
from runner.stores.sql import SqlStore
from runner.stores.sql.condition import condition_of
from runner.stores.sql.schema import REVISION
from runner.upgrade import upgrade
from tests.support.command import snakeline
from tests.support.mounts import small_disk
from tests.support.runners import settings_for
from tests.support.store_dumps import DUMPS, load


def old_store(directory: Path) -> Path:
    store = directory / "data" / "snakeline.db"
    store.parent.mkdir()
    load(DUMPS / "0001.sql", store)
    return store


def copies(store: Path) -> list[Path]:
    return list(store.parent.glob("snakeline.db.before-upgrade*"))


def test_a_store_is_upgraded_and_its_copy_is_beside_it(tmp_path: Path) -> None:
    store = old_store(tmp_path)
    done = snakeline("upgrade", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    [copy] = copies(store)
    assert done.stdout == (
        f"{store}: upgraded from revision 0001 to {REVISION}\nAs it was before it is kept as {copy}.\n"
    )
    again = snakeline("upgrade", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, f"{store}: of revision {REVISION} already\n")
    assert condition_of(str(store)).kind == "whole"


@pytest.mark.root
def test_where_there_is_no_room_the_copy_can_be_elsewhere(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", options="size=4m") as disk:
        store = old_store(disk)
        settings = {"DATA_DIR": str(store.parent)}
        refused = snakeline("serve", cwd=tmp_path, **settings)
        assert refused.returncode != 0
        assert refused.stderr.count("\n") == 1
        assert "have the copy elsewhere with `snakeline upgrade --copy FILE`" in refused.stderr
        copy = tmp_path / "before.db"
        done = snakeline("upgrade", "--copy", str(copy), cwd=tmp_path, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"As it was before it is kept as {copy}." in done.stdout
        jobs = condition_of(str(copy)).jobs
        assert jobs == condition_of(str(store)).jobs
        assert jobs
        assert copies(store) == []


def test_a_copy_never_replaces_a_file(tmp_path: Path) -> None:
    store = old_store(tmp_path)
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BackupRefused, match=r"mine exists: choose another file\.$"):
        upgrade(settings_for(store.parent), tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"
    assert "upgrades it" in SqlStore.examine(f"sqlite:///{store}")


def test_nothing_is_upgraded_under_a_running_service(tmp_path: Path) -> None:
    store = old_store(tmp_path)
    content = store.read_bytes()
    with closing(DataDir(store.parent)), pytest.raises(DataDirUnusable, match="in use by another service"):
        upgrade(settings_for(store.parent))
    assert store.read_bytes() == content


def test_without_a_store_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="There is no store at"):
        upgrade(settings_for(tmp_path))
