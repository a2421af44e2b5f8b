"""What the tests of isolation ask for."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can reach, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="snakeline-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
