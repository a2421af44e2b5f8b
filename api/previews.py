"""The beginning of a job's file, for a page to show: a table, lines of text, or what kind of image it is.

Nothing is ever handed on as markup, and nothing is decoded that a browser decodes. Whatever a file holds,
little of it is read.
"""

from __future__ import annotations

import csv
import io
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from api.problems import Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.job_files import OpenedFile

NO_PREVIEW = Kind(422, "no-preview", "There is no preview of this file")

_TEXT_BYTES: Final = 2**16
_TABLE_BYTES: Final = 2**18
_UNPACKINGS: Final = 64  # a member or 64 KiB each
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_IMAGE_BYTES: Final = 2**26
_FIRST_LINES: Final = 200
_LAST_LINES: Final = 50
_LINE_CHARS: Final = 2000
_ROWS: Final = 100
_COLUMNS: Final = 100
_CELL_CHARS: Final = 200
_SNIFFED_ROWS: Final = 20
_TABLES: Final = {b".csv": ",;\t|", b".tsv": "\t", b".tab": "\t"}
# What browsers decode by themselves, told by its first bytes and never by its name.
_IMAGES: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
)
_SVG: Final = "image/svg+xml"
IMAGE_TYPES: Final = frozenset({media_type for _, _, media_type in _IMAGES} | {_SVG})
_TEXT_CONTROLS: Final = frozenset(b"\t\n\v\f\r\x1b\b")


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """The file is to be sent as it is, as this type."""

    media_type: str


def preview(file: OpenedFile, path: bytes) -> ImagePreview | dict[str, Any]:
    """The document of a table or a text, or which image it is. Raises Problem: it is neither; OSError."""
    head = file.read(0, _TEXT_BYTES)
    is_packed = head.startswith(_GZIP)
    if is_packed:
        path = path.removesuffix(b".gz")
    suffix = path[path.rfind(b".") :].lower()
    media_type = None if is_packed else _image_type(head, suffix)
    if media_type is not None:
        if file.size_bytes > _IMAGE_BYTES:
            raise Problem(NO_PREVIEW, f"Images are shown up to {_IMAGE_BYTES} bytes: download it.")
        return ImagePreview(media_type)
    delimiters = _TABLES.get(suffix)
    begun = _Beginning.of(file, _TEXT_BYTES if delimiters is None else _TABLE_BYTES, is_packed=is_packed)
    encoding = _encoding(begun.content)
    if encoding is None or (is_packed and not begun.content):
        raise Problem(
            NO_PREVIEW, "It is neither text nor a table nor an image that browsers show: download it."
        )
    table = None if delimiters is None else _table(begun, encoding, delimiters)
    document = table or _text(begun, encoding)
    return {**document, "size": file.size_bytes, "encoding": encoding.removesuffix("-sig")}


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a file begins with, unpacked if it is packed, and what it ends with, if it can be had."""

    content: bytes
    is_all: bool
    end: bytes = b""

    @classmethod
    def of(cls, file: OpenedFile, limit: int, *, is_packed: bool) -> Self:
        if is_packed:
            return cls(*_unpacked(file, limit))
        content = file.read(0, limit)
        is_all = len(content) >= file.size_bytes
        start = max(len(content), file.size_bytes - _TEXT_BYTES)
        return cls(content, is_all, b"" if is_all else file.read(start, _TEXT_BYTES))


def _unpacked(file: OpenedFile, limit: int) -> tuple[bytes, bool]:
    """The first bytes of all gzip members together, and whether there are no more: little of it is read."""
    content, offset, rest, is_all = b"", 0, b"", False
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        for _ in range(_UNPACKINGS):
            piece = rest or file.read(offset, _TEXT_BYTES)
            if len(content) >= limit or not piece:
                return content, is_all and not piece
            offset += 0 if rest else len(piece)
            content += unpacker.decompress(piece, limit - len(content))
            rest = unpacker.unconsumed_tail or unpacker.unused_data
            is_all = unpacker.eof
            if is_all:
                unpacker = zlib.decompressobj(_GZIP_WINDOW)
    except zlib.error:  # what follows is something else, or it is broken
        pass
    return content, False


def _image_type(head: bytes, suffix: bytes) -> str | None:
    if suffix == b".svg" and b"<svg" in head:
        return _SVG
    return next((kind for at, magic, kind in _IMAGES if head[at : at + len(magic)] == magic), None)


def _encoding(head: bytes) -> str | None:
    """Its name in Python; None for what is no text."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in set(head)):
        return None
    try:
        getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "iso-8859-1"
    return "utf-8-sig" if head.startswith(BOM_UTF8) else "utf-8"


def _decoded(content: bytes, encoding: str) -> str:
    """As far as whole characters go; behind the head it may be anything."""
    return getincrementaldecoder(encoding)("replace").decode(content)


# ---------------------------------------------------------------- text


def _text(begun: _Beginning, encoding: str) -> dict[str, Any]:
    lines = _lines(_decoded(begun.content, encoding), is_all=begun.is_all)
    first, rest = lines[:_FIRST_LINES], lines[_FIRST_LINES:]
    last = rest[-_LAST_LINES:] if begun.is_all else []
    if begun.end and encoding != "utf-16":  # whose characters do not tell where they begin
        end = _decoded(begun.end, encoding.removesuffix("-sig"))
        last = end.removesuffix("\n").split("\n")[1:][-_LAST_LINES:]
    return {
        "kind": "text",
        "first": [_cut(line) for line in first],
        "last": [_cut(line) for line in last],
        "is_whole": begun.is_all
        and len(rest) <= _LAST_LINES
        and all(len(line) <= _LINE_CHARS for line in lines),
    }


def _lines(text: str, *, is_all: bool) -> list[str]:
    """Without the last where it may be a part of one, unless it is the only one."""
    lines = text.split("\n")
    if lines[-1] == "" or (not is_all and len(lines) > 1):
        lines.pop()
    return lines


def _cut(line: str) -> str:
    return line[:_LINE_CHARS].removesuffix("\r")


# ---------------------------------------------------------------- tables


def _table(begun: _Beginning, encoding: str, delimiters: str) -> dict[str, Any] | None:
    """None for what makes no table."""
    text = _decoded(begun.content, encoding)
    if not begun.is_all:
        text = text[: text.rfind("\n") + 1]
    try:
        delimiter = max(delimiters, key=lambda each: _agreement(text, each))
        rows = list(islice(_rows(text, delimiter), _ROWS + 2))
    except csv.Error:
        return None
    if not rows:
        return None
    header, rows = rows[0], rows[1:]
    shown = [header, *rows[:_ROWS]]
    columns = max(len(row) for row in shown)
    is_cut = columns > _COLUMNS or any(len(cell) > _CELL_CHARS for row in shown for cell in row)
    return {
        "kind": "table",
        "delimiter": delimiter,
        "header": _cells(header),
        "rows": [_cells(row) for row in rows[:_ROWS]],
        "columns": columns,
        "is_whole": begun.is_all and len(rows) <= _ROWS and not is_cut,
    }


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _agreement(text: str, delimiter: str) -> int:
    """How many of the first rows have as many cells as the first one, where that is more than one."""
    try:
        rows = list(islice(_rows(text, delimiter), _SNIFFED_ROWS))
    except csv.Error:  # a cell of more than 128 Ki characters
        return -1
    width = len(rows[0]) if rows else 0
    return sum(len(row) == width for row in rows) if width > 1 else 0


def _cells(row: list[str]) -> list[str]:
    return [cell[:_CELL_CHARS] for cell in row[:_COLUMNS]]
