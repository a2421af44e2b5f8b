"""The bytes of a ZIP archive that is written as it is sent: never gone back to, no size known before.

As PKWARE's APPNOTE.TXT 6.3 has it; numbers in brackets are its sections. Every entry that holds something
is deflated, also what cannot be made smaller (at level 0): readers that do not seek find the end of no other.
"""

from __future__ import annotations

import struct
import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from api.packed_bytes import PackedBytes

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")  # [4.3.7]
_CENTRAL: Final = struct.Struct("<IHHHHHHIIIHHHHHII")  # [4.3.12]
_DESCRIPTOR: Final = struct.Struct("<IIII")  # [4.3.9]
_LONG_DESCRIPTOR: Final = struct.Struct("<IIQQ")
_END: Final = struct.Struct("<IHHHHIIH")  # [4.3.16]
_LONG_END: Final = struct.Struct("<IQHHIIQQQQ")  # [4.3.14]
_LONG_END_PLACE: Final = struct.Struct("<IIQI")  # [4.3.15]
_TIME: Final = struct.Struct("<HHBi")  # Info-ZIP's extended timestamp: seconds since the epoch
_LONG_SIZES: Final = struct.Struct("<HHQQ")  # [4.5.3]

_FULL_16: Final = 0xFFFF
_FULL_32: Final = 0xFFFFFFFF
_DEFLATED: Final = 8
_DESCRIBED: Final = 0x0008  # sizes and checksum follow the content
_UTF_8: Final = 0x0800
_BY_UNIX: Final = 3 << 8
_PLAIN_FILE: Final = 0o100644 << 16
_FOLDER: Final = 0o040755 << 16 | 0x10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_S: Final = 2**31 - 1

_SAMPLE_BYTES: Final = 2**16
_WORTH_IT: Final = 0.95
# Deflate makes nothing larger by more than this share and a few bytes.
_LONGEST_SHORT: Final = _FULL_32 - 2**24


def entry_name(path: bytes) -> bytes:
    """A path as an archive may hold it, whoever unpacks it.

    What is no UTF-8, control characters, and the backslash, which separates folders elsewhere, become %XX.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return path
    return "".join(_safe(each) for each in text).encode()


def _safe(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"%{code - 0xDC00:02X}"
    return f"%{code:02X}" if code < 0x20 or 0x7F <= code < 0xA0 or character == "\\" else character


class ZipWriter:
    """Gives an archive's bytes in order: `begin`, `content`… and `end` for each entry, then `close`.

    It keeps the directory that stands at the end, compressed: some 30 bytes for an entry.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._entries = 0
        self._directory = PackedBytes()

    def begin(self, name: bytes, modified_ns: int, most_bytes: int) -> bytes:
        """Start an entry whose content will have at most `most_bytes`; `name` is as `entry_name` gives it.

        A folder's ends with a slash, and it has no content.
        """
        self._name, self._most = name, most_bytes
        self._start = self._offset
        self._crc = self._size = self._packed_size = 0
        self._deflate: zlib._Compress | None = None
        seconds = min(max(modified_ns // 10**9, 0), _LAST_S)
        self._time, self._date = _dos_time(seconds)
        self._extra = _TIME.pack(0x5455, 5, 1, seconds)
        self._is_long = most_bytes > _LONGEST_SHORT
        self._method = _DEFLATED if most_bytes else 0
        self._flags = _UTF_8 | (_DESCRIBED if most_bytes else 0)
        self._needs = 45 if self._is_long else 20
        sizes, extra = 0, self._extra
        if self._is_long:
            sizes, extra = _FULL_32, _LONG_SIZES.pack(1, 16, 0, 0) + extra
        head = _LOCAL.pack(
            0x04034B50, self._needs, self._flags, self._method, self._time, self._date,
            0, sizes, sizes, len(name), len(extra),
        )  # fmt: skip
        return self._told(head + name + extra)

    def content(self, piece: bytes) -> bytes:
        """Some of the entry's content, deflated; b"" while too little has come together."""
        if self._deflate is None:
            self._deflate = zlib.compressobj(_level(piece), zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = zlib.crc32(piece, self._crc)
        self._size += len(piece)
        assert self._size <= self._most, "more content than was announced"
        return self._packed(self._deflate.compress(piece))

    def end(self) -> bytes:
        """The last of the entry."""
        if not self._most:
            self._record()
            return b""
        deflate = self._deflate or zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
        last = self._packed(deflate.flush())
        self._deflate = None
        form = _LONG_DESCRIPTOR if self._is_long else _DESCRIPTOR
        last += self._told(form.pack(0x08074B50, self._crc, self._packed_size, self._size))
        self._record()
        return last

    def close(self) -> Iterator[bytes]:
        """The directory: with it the archive is whole."""
        yield from self._directory.pieces()
        yield self._end_records(self._offset, self._directory.size_bytes)

    def _end_records(self, start: int, size: int) -> bytes:
        records = b""
        if self._entries >= _FULL_16 or start >= _FULL_32 or size >= _FULL_32:
            records += _LONG_END.pack(
                0x06064B50, 44, _BY_UNIX | 45, 45, 0, 0, self._entries, self._entries, size, start
            )
            records += _LONG_END_PLACE.pack(0x07064B50, 0, start + size, 1)
        entries = min(self._entries, _FULL_16)
        return records + _END.pack(
            0x06054B50, 0, 0, entries, entries, min(size, _FULL_32), min(start, _FULL_32), 0
        )

    def _record(self) -> None:
        extra, shown = self._extra, [self._packed_size, self._size, self._start]
        if self._is_long or self._start >= _FULL_32:
            # [4.5.3]: what stands here is full in the record itself, in this order.
            long = [self._size, self._packed_size, self._start]
            extra = struct.pack("<HHQQQ", 1, 24, *long) + extra
            shown = [_FULL_32] * 3
        attributes = _FOLDER if self._name.endswith(b"/") else _PLAIN_FILE
        needs = 45 if len(extra) > len(self._extra) else self._needs
        record = _CENTRAL.pack(
            0x02014B50, _BY_UNIX | 45, needs, self._flags, self._method, self._time, self._date, self._crc,
            shown[0], shown[1], len(self._name), len(extra), 0, 0, 0, attributes, shown[2],
        )  # fmt: skip
        self._directory.add(record + self._name + extra)
        self._entries += 1

    def _packed(self, piece: bytes) -> bytes:
        self._packed_size += len(piece)
        return self._told(piece)

    def _told(self, piece: bytes) -> bytes:
        self._offset += len(piece)
        return piece


def _level(first: bytes) -> int:
    """0 for what is compressed already or cannot be: that costs a tenth of trying it."""
    sample = first[:_SAMPLE_BYTES]
    return 1 if len(zlib.compress(sample, 1)) < _WORTH_IT * len(sample) else 0


def _dos_time(seconds: int) -> tuple[int, int]:
    """[4.4.6] in UTC, to two seconds, from 1980 on."""
    when = max(_EPOCH + timedelta(seconds=seconds), datetime(1980, 1, 1, tzinfo=UTC))
    time = when.hour << 11 | when.minute << 5 | when.second // 2
    return time, (when.year - 1980) << 9 | when.month << 5 | when.day
