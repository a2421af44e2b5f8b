"""The last lines of an open file, however long it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import file_tail
from api.file_tail import tail_offset
from runner.job_files import OpenedFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_tail, "_BLOCK_BYTES", 4)
        patch.setattr(file_tail, "_LOOKED_AT_BYTES", 40)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tail") / "file.log"


@pytest.mark.usefixtures("small_blocks")
@given(st.lists(st.sampled_from([b"\n", b"a", b"\r\n", b"bcdefghij"]), max_size=12), st.integers(0, 6))
def test_it_is_where_the_last_lines_begin(path: Path, pieces: list[bytes], lines: int) -> None:
    data = b"".join(pieces)[-40:]
    path.write_bytes(data)
    with path.open("rb") as opened:
        start = tail_offset(OpenedFile.of(opened.fileno()), lines)
    kept = re.findall(rb"[^\n]*\n|[^\n]+", data)
    assert data[start:] == b"".join(kept[-lines:] if lines else [])


@pytest.mark.usefixtures("small_blocks")
def test_in_a_file_of_one_long_line_it_looks_back_so_far_and_no_further(path: Path) -> None:
    path.write_bytes(b"first\n" + b"x" * 100)
    with path.open("rb") as opened:
        assert tail_offset(OpenedFile.of(opened.fileno()), 1) == 106 - 40
