"""The `snakeline` command in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.server import service_environment

if TYPE_CHECKING:
    from pathlib import Path


def snakeline(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; unless `settings` (names without the prefix) say so, its data is in `cwd`/data."""
    return subprocess.run(
        [sys.executable, "-m", "snakeline", *arguments],
        cwd=cwd,
        env=service_environment({"DATA_DIR": str(cwd / "data"), "PORT": "0", **settings}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
