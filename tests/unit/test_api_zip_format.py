"""ZIP archives written piece by piece: whole for whoever reads them, whatever their size and their names."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from api.zip_format import ZipWriter, entry_name
from runner.beneath import is_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

WHEN_NS = 1_700_000_002_000_000_000
NOISE = os.urandom(2**18)


def written(entries: Iterable[tuple[bytes, bytes, int]], writer: ZipWriter | None = None) -> Iterator[bytes]:
    """An archive of names, contents and the most that was announced."""
    writer = writer or ZipWriter()
    for name, content, most in entries:
        yield writer.begin(entry_name(name), WHEN_NS, most)
        for start in range(0, len(content), 2**16):
            yield writer.content(content[start : start + 2**16])
        yield writer.end()
    yield from writer.close()


def read(path: Path) -> dict[str, bytes]:
    """What Python finds in it, and Info-ZIP as well where it is installed; both check the checksums."""
    if shutil.which("unzip"):
        told = subprocess.run(["unzip", "-tq", path], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_an_archive_holds_what_was_put_in(tmp_path: Path) -> None:
    contents = {b"a/text": b"line\n" * 50_000, b"a/empty": b"", b"a/noise": NOISE, "a/größe".encode(): b"z"}
    path = tmp_path / "a.zip"
    path.write_bytes(b"".join(written((name, body, len(body)) for name, body in contents.items())))
    assert read(path) == {name.decode(): body for name, body in contents.items()}
    with zipfile.ZipFile(path) as archive:
        text, empty, noise, _ = archive.infolist()
    assert text.compress_size < 2000
    assert noise.compress_size < len(NOISE) * 1.001
    assert (text.date_time, text.external_attr >> 16) == ((2023, 11, 14, 22, 13, 22), 0o100644)
    # Readers that do not seek find the end of no other entry without a size.
    assert {text.compress_type, noise.compress_type} == {zipfile.ZIP_DEFLATED}
    assert empty.compress_type == zipfile.ZIP_STORED


def test_less_than_was_announced_is_held_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"".join(written([(b"shrunk", b"ab", 100), (b"gone", b"", 100), (b"next", b"c", 1)])))
    assert read(path) == {"shrunk": b"ab", "gone": b"", "next": b"c"}


def test_entries_and_archives_may_be_larger_than_32_bits_tell(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    behind = 5 * 2**30
    writer = ZipWriter()
    writer._offset = behind  # as if so much had been written before
    entries = [(b"long", b"x" * 1000, 6 * 2**30), (b"short", b"y", 1)]
    with path.open("wb") as file:
        file.seek(behind)  # nothing is there: it takes no room
        file.writelines(written(entries, writer))
    assert read(path) == {"long": b"x" * 1000, "short": b"y"}


def test_there_may_be_more_entries_than_16_bits_tell(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    writer = ZipWriter()
    before = 65_000
    writer._entries = before  # as if there had been so many before
    with path.open("wb") as file:
        file.writelines(written(((b"folder/%d" % n, b"", 0) for n in range(5000)), writer))
    assert sum(map(len, writer._directory._packed)) < 20 * 5000  # all that grows with them
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"folder/{n}" for n in range(5000)]
    told = path.read_bytes()
    *_, entries_here, entries, size, start = struct.unpack("<IQHHIIQQQQ", told[-56 - 20 - 22 : -20 - 22])
    assert (entries_here, entries) == (before + 5000, before + 5000)
    assert start + size == len(told) - 56 - 20 - 22
    assert told[-14:-10] == b"\xff" * 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"plain/name.txt", "plain/name.txt"),
        ("größe/漢 字".encode(), "größe/漢 字"),
        (b"\xff\xfe.bin", "%FF%FE.bin"),
        (b"..\\..\\evil", "..%5C..%5Cevil"),
        (b"C:\\evil", "C:%5Cevil"),
        (b"a\nb\x1b[2J\x7f", "a%0Ab%1B[2J%7F"),
        ("\x85\u202e".encode(), "%85\u202e"),
        (b'"quoted" <tag>', '"quoted" <tag>'),
    ],
)
def test_no_name_means_anything_else_where_it_is_unpacked(path: bytes, name: str) -> None:
    assert entry_name(path) == name.encode()
    assert is_path(entry_name(path))


@pytest.mark.parametrize("seconds", [-(2**40), 0, 2**31, 2**40])
def test_any_time_can_be_told(seconds: int) -> None:
    head = ZipWriter().begin(b"name", seconds * 10**9, 1)
    assert b"name" in head
