"""Where the last lines of an open file begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runner.newlines import behind_newline

if TYPE_CHECKING:
    from runner.job_files import OpenedFile

_BLOCK_BYTES: Final = 64 * 2**10
_LOOKED_AT_BYTES: Final = 64 * 2**20


def tail_offset(file: OpenedFile, lines: int) -> int:
    """Where its last `lines` lines begin; a last one without a newline counts.

    The search goes back over 64 MiB at most: in a file with longer lines it ends there.
    """
    size = high = file.size_bytes
    if lines < 1:
        return size
    wanted = lines  # newlines to find, going back; the one that ends the file is no line of its own
    floor = max(0, size - _LOOKED_AT_BYTES)
    while high > floor:
        low = max(floor, high - _BLOCK_BYTES)
        block = file.read(low, high - low)
        if high == size and block.endswith(b"\n"):
            wanted += 1
        if (at := behind_newline(block, wanted)) is not None:
            return low + at
        wanted -= block.count(b"\n")
        high = low
    return floor
