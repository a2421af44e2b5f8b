"""What is stored is for the service's own user, whatever the umask it was started with."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_STORE_ONE_JOB = """
import sys
from pathlib import Path
from runner.data_dir import DataDir
from runner.stores.sql import SqlStore
from tests.support.stores import added
data_dir = DataDir(Path(sys.argv[1]))
store = SqlStore.open(f"sqlite:///{sys.argv[1]}/snakeline.db")
added(store)
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(f"{path.stat().st_mode & 0o777:o} {path.name}")
store.close()
"""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_stores_files_are_their_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    data_dir = tmp_path / "data"
    shown = subprocess.run(
        [sys.executable, "-B", "-c", _STORE_ONE_JOB, str(data_dir)],
        cwd=ROOT,
        umask=umask,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.split("\n")[:-1] == [
        "700 jobs",
        f"{0o600 & ~umask:o} lock",
        "600 snakeline.db",
        "600 snakeline.db-shm",
        "600 snakeline.db-wal",
    ]
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


def test_a_directory_that_somebody_else_made_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir(mode=0o750)
    tmp_path.chmod(0o750)
    subprocess.run(
        [sys.executable, "-B", "-c", _STORE_ONE_JOB, str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, tmp_path / "jobs")] == [0o750, 0o750]
