"""Earlier versions of this program, out of the repository's history, installed and upgraded in place."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("api", "runner", "snakeline", "mock_snakemake", "workflows")
"""What an installed program consists of; what it needs besides is this environment's."""

RELEASES: Final = {
    "0001": "95c84364e113a79fb566ec34d74269d91cde43cf",
    "0002": "5ab6da5a6312ed87eb98db9c18f6d802b0a826d8",
    "0004": "eb7e228e45baa24a3a0ac492d4b6acca24c89c35",
}
"""By the revision of their stores: the last commit of each. There was never one of revision 0003."""


@cache
def _compiled(revision: str) -> Path:
    """The release, compiled once for all installations of this process: good for copies of the same age."""
    folder = Path(tempfile.mkdtemp(prefix="snakeline-release-"))
    atexit.register(shutil.rmtree, folder)
    commit = RELEASES[revision]
    archive = subprocess.run(
        ["git", "archive", commit, *PACKAGES], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode != 0:
        pytest.skip(f"this clone has no {commit[:7]}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    folder.chmod(0o755)
    return folder


class Installation:
    """A folder with one version of the program in it, `through` which a `LiveServer` is that version."""

    def __init__(self, folder: Path, revision: str) -> None:
        """The last release with stores of this revision. Skips the test where the history is without it."""
        self.folder = folder
        shutil.copytree(_compiled(revision), folder)

    @property
    def through(self) -> tuple[str, ...]:
        # Python finds modules in its working directory first.
        return ("/usr/bin/env", "-C", str(self.folder))

    def upgrade(self) -> None:
        """Put the present version in the place of the other, as an installer does: its files first go."""
        for package in PACKAGES:
            shutil.rmtree(self.folder / package)
        for package in (*PACKAGES, "dashboard"):
            # With what is compiled of it, which is good for files of the same age.
            shutil.copytree(ROOT / package, self.folder / package)
