"""What must survive a power cut is synced in the right order: seen in the calls that are made."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.backup import back_up
from runner.job_damage import JobDamage
from runner.ports import Ended
from runner.stores.sql import SqlStore, sqlite
from tests.support import tracing
from tests.support.attempts import Attempts
from tests.support.runners import settings_for
from tests.support.store_dumps import DUMPS, load
from tests.support.stores import store_url

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[list[str]]:
    """The calls of a shim from its birth to its end, each with the last part of its path."""
    if obstacle := tracing.obstacle():
        pytest.skip(obstacle)
    marker = tmp_path / "traced"
    marker.touch()
    with contextlib.closing(Attempts(tmp_path, warm=True, preload=f"support.tracing:{marker}")) as attempts:
        handle = attempts.launch("exit=7")
        shim = attempts.until_running(handle)
        files = attempts.files(handle)
        made = list(tracing.Tracee(shim).calls())
        ended = attempts.end(handle)
        assert isinstance(ended, Ended)
        assert ended.record.exit_code == 7
        yield [f"{call.name} {call.path.removeprefix(files.directory)}".strip() for call in made]


def in_order(calls: list[str], *wanted: str) -> bool:
    """Whether `wanted` are found one after the other, whatever else stands between them."""
    rest = iter(calls)
    return all(call in rest for call in wanted)


def test_the_start_mark_is_durable_before_the_engine_is_told_to_run(calls: list[str]) -> None:
    marked = calls.index("openat /started")
    told = marked + calls[marked:].index("write")  # the number of the command, to the waiting engine
    synced = calls[marked:told]
    assert in_order(synced, "openat /started", "openat", "fsync"), calls
    assert synced.index("fsync") == len(synced) - 1 - synced[::-1].index("fsync")


def test_a_result_is_synced_and_then_renamed_and_then_its_directory_is_synced(calls: list[str]) -> None:
    written = len(calls) - 1 - calls[::-1].index("pwrite64")
    named = calls.index("rename /exit.json")
    assert "fsync" in calls[written:named], calls
    assert in_order(calls[named:], "rename /exit.json", "openat", "fsync"), calls
    assert "openat /exit.json" not in calls


@pytest.mark.parametrize("kind", ["content", "name"])
def test_a_result_whose_sync_fails_is_synced_again(tmp_path: Path, kind: str) -> None:
    if obstacle := tracing.obstacle():
        pytest.skip(obstacle)
    marker = tmp_path / "traced"
    marker.touch()
    with contextlib.closing(Attempts(tmp_path, warm=True, preload=f"support.tracing:{marker}")) as attempts:
        handle = attempts.launch("exit=7")
        tracee = tracing.Tracee(attempts.until_running(handle))
        calls: list[str] = []
        for call in tracee.calls():
            calls.append(f"{call.name} {os.path.basename(call.path)}".strip())
            at = "ftruncate" if kind == "content" else "rename exit.json"
            if call.name == "fsync" and at in calls and "failed" not in calls:
                tracee.fail(errno.EIO)
                calls.append("failed")
        ended = attempts.end(handle)
    assert isinstance(ended, Ended)
    assert ended.record.exit_code == 7
    again = ("pwrite64", "fsync", "rename exit.json") if kind == "content" else ("openat 1", "fsync")
    assert in_order(calls[calls.index("failed") :], *again), calls


# ---------------------------------------------------------------- the store


def changes(place: Path, trace: Path, script: str, *arguments: str) -> list[str]:
    """What a Python script does to the names in `place` and when it syncs what, up to its line `done`."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    followed = "trace=openat,unlink,rename,fsync,fdatasync,write"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", str(trace), "-e", followed, sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if b"ptrace" in done.stderr:
        pytest.skip("this process may not trace another one")
    assert done.returncode == 0, done.stderr
    before, ended, _ = trace.read_text().partition('"done"')
    assert ended
    return [change for line in before.splitlines() for change in _change(line, str(place))]


def _change(line: str, place: str) -> list[str]:
    def name(path: str) -> str:
        path = path.removeprefix(place).lstrip("/") or "."
        path = re.sub(r"^\..*\.partial$", "partial", path)
        return re.sub(r"\.before-restore-[0-9TZ.]+Z", ".kept", path)

    call = re.search(
        r"\b(unlink|rename|openat|fsync|fdatasync)\((.*)\) += 0|\b(openat)\((.*O_CREAT.*)\) += \d", line
    )
    if call is None or place not in line:
        return []
    kind, text = (call[1], call[2]) if call[1] else (call[3], call[4])
    match kind:
        case "fsync" | "fdatasync":
            return [f"sync {name(text.partition('<')[2].rstrip('>'))}"]
        case "openat" if "O_CREAT" not in text:
            return []
        case _:
            paths = re.findall(r'"([^"]+)"', text)
            return [" ".join([kind.removesuffix("at"), *map(name, paths)])]


_OPEN = """
import os, sys
from runner.stores.sql import SqlStore
store = SqlStore.open(sys.argv[1])
os.write(1, b"done")
store.close()
"""


def test_a_new_store_is_in_its_directory_for_good_before_it_takes_a_job(tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    done = changes(place, tmp_path / "trace", _OPEN, store_url(place))
    changed = max(n for n, change in enumerate(done) if not change.startswith("sync"))
    assert "sync ." in done[changed:], done


def test_the_copy_from_before_an_upgrade_has_its_name_for_good_before_the_upgrade_is_committed(
    tmp_path: Path,
) -> None:
    place = tmp_path / "data"
    place.mkdir()
    load(DUMPS / "0001.sql", place / "snakeline.db")
    done = changes(place, tmp_path / "trace", _OPEN, store_url(place))
    renamed = next(n for n, change in enumerate(done) if change.startswith("rename "))
    assert "sync snakeline.db.before-upgrade.partial" in done[:renamed], done
    synced = [change for change in done[renamed:] if change.startswith("sync")]
    assert synced.index("sync .") < synced.index("sync snakeline.db-wal"), done


_BACK_UP = """
import os, sys
from pathlib import Path
from runner.backup import back_up
from runner.job_damage import JobDamage
from tests.support.runners import settings_for
back_up(settings_for(Path(sys.argv[1])), Path(sys.argv[2]))
os.write(1, b"done")
"""


def test_a_backup_is_synced_and_then_renamed_and_then_its_directory_is_synced(tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "backups"
    data.mkdir()
    place.mkdir()
    SqlStore.open(store_url(data)).close()
    done = changes(place, tmp_path / "trace", _BACK_UP, str(data), str(place / "b.db"))
    assert in_order(done, "sync partial", "rename partial b.db", "sync ."), done


_ADD_AND_DIE = """
import os, sys
from runner.stores.sql import SqlStore
from tests.support.stores import added
added(SqlStore.open(sys.argv[1]))
os._exit(0)
"""
_REPLACE = """
import os, sys
from runner.stores.sql import snapshot, sqlite, swap
store, backup = sys.argv[1:]
swap.make_empty(sqlite.incoming(store))
snapshot.copy(backup, sqlite.incoming(store), at_rest=True)
swap.install(store, why="before-restore")
os.write(1, b"done")
"""


def test_a_store_is_replaced_in_steps_each_synced_before_the_next(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run([sys.executable, "-c", _ADD_AND_DIE, store_url(data)], cwd=ROOT, check=True)
    backup = tmp_path / "b.db"
    back_up(settings_for(data), backup)
    done = changes(data, tmp_path / "trace", _REPLACE, str(data / "snakeline.db"), str(backup))
    incoming = os.path.basename(sqlite.incoming(str(data / "snakeline.db")))
    steps = [
        f"sync {incoming}",
        "sync snakeline.db.kept-wal",
        "rename snakeline.db snakeline.db.kept",
        "sync .",
        "unlink snakeline.db-wal",
        "sync .",
        f"rename {incoming} snakeline.db",
        "sync .",
    ]
    assert [change for change in done if change in steps][-len(steps) :] == steps, done


# ---------------------------------------------------------------- a repair


def repaired(data: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, Any] | None) -> list[str]:
    """What is renamed and synced, in order, while every remedy is applied."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def told_fsync(fd: int) -> None:
        fsync(fd)
        done.append(f"sync {os.path.relpath(os.readlink(f'/proc/self/fd/{fd}'), data)}")

    def told_rename(source: str, target: str, **folders: int) -> None:
        rename(source, target, **folders)
        done.append(f"rename {source} {target}")

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "rename", told_rename)
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for finding in JobDamage(folder).find(rows, frozenset()):
            assert finding.apply is not None
            finding.apply()
    finally:
        os.close(folder)
    return done


def test_a_folder_moved_aside_is_there_for_good_and_gone_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs" / "stray").mkdir(parents=True)
    done = repaired(tmp_path, monkeypatch, {})
    assert done[0] == "rename stray stray"
    assert sorted(done[1:]) == ["sync jobs", "sync orphans"]


def test_a_damaged_file_put_aside_has_its_new_name_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = tmp_path / "jobs" / "stray" / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "exit.json").write_bytes(b"{")
    done = repaired(tmp_path, monkeypatch, None)
    assert done == ["rename exit.json exit.json.damaged", "sync jobs/stray/attempts/1"]
