"""Bytes that are kept compressed until they are sent."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_PIECE_BYTES: Final = 2**16


class PackedBytes:
    """Takes them piece by piece, and gives them so as often as one likes."""

    def __init__(self) -> None:
        self.size_bytes = 0  # unpacked
        self._packed: list[bytes] = []
        self._packer: zlib._Compress | None = zlib.compressobj(1)

    def add(self, piece: bytes) -> None:
        """Put it behind the others: before any of them is given."""
        assert self._packer is not None, "what has been given is whole"
        self.size_bytes += len(piece)
        if packed := self._packer.compress(piece):
            self._packed.append(packed)

    def pieces(self, most_bytes: int = _PIECE_BYTES) -> Generator[bytes]:
        if self._packer is not None:
            self._packed.append(self._packer.flush())
            self._packer = None
        unpacker = zlib.decompressobj()
        for packed in self._packed:
            rest = packed
            while rest:
                yield unpacker.decompress(rest, most_bytes)
                rest = unpacker.unconsumed_tail
        yield unpacker.flush()
