"""The `snakeline` command in a process of its own."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING

from tests.support.forked_service import ForkedService
from tests.support.server import service_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_WITHIN_S = 60.0


def snakeline(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; unless `settings` (names without the prefix) say so, its data is in `cwd`/data."""
    given = service_environment({"DATA_DIR": str(cwd / "data"), "PORT": "0", **settings})
    return snakeline_with(given, *arguments, cwd=cwd)


def snakeline_with(
    environment: Mapping[str, str], *arguments: str, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, forked: see `forked_service`."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = ForkedService(
            environment,
            output.fileno(),
            ("snakeline", *arguments),
            errors=errors.fileno(),
            directory=cwd,
        )
        try:
            code = process.wait(_WITHIN_S)
        finally:
            process.kill()
        told = []
        for file in (output, errors):
            file.seek(0)
            told.append(file.read().decode())
    return subprocess.CompletedProcess(("snakeline", *arguments), code, *told)
