"""Reading the log of an attempt while its shim writes, rotates and drops segments.

Segment n is the file `log.n` and begins at stream offset n times the segment size. Only the newest may be
shorter than that. The writer fills a segment before it makes the next, keeps the first and the newest
ones, and deletes those between. A listing and an open are two moments: whatever vanished between them is
in the gap now.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from runner.attempt_files import SEGMENTS_KEPT, AttemptFiles, InvalidRecord, ShimSpec
from runner.beneath import is_plain, open_file, read_file
from runner.job_files import open_job_folder
from runner.log_store import Gap
from runner.log_watch import LogWatchers
from runner.newlines import behind_newline

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from runner.log_store import LogWatch

READ_LIMIT_BYTES: Final = 2**20
_TAIL_BLOCK_BYTES: Final = 256 * 2**10
_SPEC_LIMIT_BYTES: Final = 16 * 2**20
_ONE_SEGMENT: Final = 2**62  # the size assumed while log.0 is alone and no specification says better
_SEGMENT_NAME: Final = re.compile(r"log\.(0|[1-9][0-9]{0,9})")
_TRIES: Final = 64  # tries against a writer that drops segments faster than we look


class SegmentLogStore:
    """The logs below one data directory. Holds no descriptors but those of the watches in use."""

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self._data_dir = os.fspath(data_dir)
        self._watchers = LogWatchers(self._data_dir)

    def open(self, job_id: str, attempt: int) -> SegmentLog:
        """An attempt that has written nothing yet has an empty log; nothing is opened here."""
        files = AttemptFiles.of(self._data_dir, job_id, attempt)
        return SegmentLog(self._data_dir, f"{job_id}/attempts/{attempt}", files, self._watchers)


class SegmentLog:
    """The log of one attempt; safe to use from several threads.

    A symbolic link anywhere below the data directory, a hard link, and anything that is not a regular
    file count as absent: whatever a job puts there, only its own output is ever read.
    """

    def __init__(self, data_dir: str, directory: str, files: AttemptFiles, watchers: LogWatchers) -> None:
        self._data_dir = data_dir
        self._directory = directory  # below that of all jobs
        self._files = files
        self._watchers = watchers
        self._known_segment_bytes: int | None = None

    def size(self) -> int:
        """Bytes written so far, the skipped ones included."""
        directory = self._open_directory()
        if directory is None:
            return 0
        try:
            return self._end(directory)
        finally:
            os.close(directory)

    def gap(self) -> Gap | None:
        """The bytes that were dropped to keep the log within its limit; None while all are there."""
        directory = self._open_directory()
        if directory is None:
            return None
        try:
            return self._gap(directory)
        finally:
            os.close(directory)

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """At most `limit` bytes (and at most 1 MiB) from `offset` on, and the offset they really begin at.

        Bytes in the gap are passed over: the answer then begins behind it, and it never spans the gap.
        At the end, and beyond it: (size, b"").
        """
        if offset < 0 or limit < 1:
            raise ValueError(
                f"a read needs an offset of 0 or more and a limit of 1 or more: {offset}, {limit}"
            )
        directory = self._open_directory()
        if directory is None:
            return 0, b""
        try:
            return self._read(directory, offset, min(limit, READ_LIMIT_BYTES))
        finally:
            os.close(directory)

    def tail_offset(self, lines: int) -> int:
        """Where the last `lines` lines begin; never inside the gap.

        A last line without a newline counts. The search goes back in blocks over what is kept behind the
        gap and no further: at worst the log's limit is read once, when its lines are very long.
        """
        directory = self._open_directory()
        if directory is None:
            return 0
        try:
            floor = self._kept_from(directory)
            size = self._end(directory)
            if lines < 1 or size <= floor:
                return size
            start = self._line_start(directory, floor, size, lines)
            # The writer may have dropped more than that meanwhile.
            return max(start, self._kept_from(directory))
        finally:
            os.close(directory)

    def watch(self) -> AbstractAsyncContextManager[LogWatch]:
        """Wakes an asyncio reader when something is appended; also before the log exists."""
        return self._watchers.watch(self._files, self.size)

    # ------------------------------------------------------------ files

    def _open_directory(self) -> int | None:
        """The attempt's directory; None while there is none."""
        try:
            return open_job_folder(f"{self._data_dir}/jobs", self._directory)
        except FileNotFoundError:
            return None

    def _segments(self, directory: int) -> dict[int, int]:
        """Index to size of the segments there are."""
        names = {int(m[1]): m[0] for m in map(_SEGMENT_NAME.fullmatch, os.listdir(directory)) if m}
        found: dict[int, int] = {}
        for index in sorted(names):
            found.pop(index, None)
            try:
                status = os.stat(names[index], dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                # Dropped since the listing: so the next one had been made, whether the listing has it or not.
                if index > 0:
                    found[index + 1] = 0
                continue
            if is_plain(status):
                found[index] = status.st_size
        return found

    def _segment_bytes(self, directory: int, segments: dict[int, int] | None = None) -> int:
        """The size of a full segment: from spec.json, read once; without it, what the files suggest."""
        if self._known_segment_bytes is None:
            self._known_segment_bytes = _specified_segment_bytes(directory)
        if self._known_segment_bytes is not None:
            return self._known_segment_bytes
        segments = self._segments(directory) if segments is None else segments
        if set(segments) <= {0}:
            return _ONE_SEGMENT
        return max(1, segments[min(segments)])

    def _end(self, directory: int) -> int:
        segments = self._segments(directory)
        if not segments:
            return 0
        full = self._segment_bytes(directory, segments)
        newest = max(segments)
        return newest * full + min(segments[newest], full)

    def _gap(self, directory: int) -> Gap | None:
        segments = self._segments(directory)
        lowest = self._lowest_behind(directory, 0, segments)
        if lowest is None:
            return None
        full = self._segment_bytes(directory, segments)
        start = full if 0 in segments else 0
        end = lowest * full
        return Gap(start, end) if start < end else None

    def _kept_from(self, directory: int) -> int:
        gap = self._gap(directory)
        return gap.end if gap else 0

    def _lowest_behind(self, directory: int, index: int, listed: dict[int, int]) -> int | None:
        """The lowest segment behind `index`, None when `listed` has none.

        A listing may show a segment that was made while it was taken and lack others made then too. So it
        only proves that all up to its newest were made; which of them are kept is asked one by one.
        """
        newest = max(listed, default=0)
        if newest <= index:
            return None
        if index + 1 in listed:
            return index + 1
        candidates = {i for i in listed if i > index}
        candidates.update(range(max(index + 1, newest - SEGMENTS_KEPT + 2), newest))
        return next((i for i in sorted(candidates) if _exists(directory, i)), newest + 1)

    # ------------------------------------------------------------ reading

    def _read(self, directory: int, offset: int, limit: int) -> tuple[int, bytes]:
        full = self._segment_bytes(directory)
        start, first = self._first_piece(directory, offset, limit, full)
        pieces = [first]
        got = len(first)
        while first and got < limit and (start + got) % full == 0:
            piece = _piece(directory, start + got, limit - got, full)
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        return start, first if len(pieces) == 1 else b"".join(pieces)

    def _first_piece(self, directory: int, offset: int, limit: int, full: int) -> tuple[int, bytes]:
        """The first bytes at or behind `offset` within one segment."""
        for _ in range(_TRIES):
            piece = _piece(directory, offset, limit, full)
            if piece:
                return offset, piece
            segments = self._segments(directory)
            newest = max(segments, default=0)
            end = newest * full + min(segments.get(newest, 0), full)
            if end <= offset:
                return end, b""
            # It grew since that read, or the segment is gone, or it is damaged. What this read finds is
            # final: a later segment proves that this one was full.
            piece = _piece(directory, offset, limit, full)
            if piece:
                return offset, piece
            following = self._lowest_behind(directory, offset // full, segments)
            if following is None:
                return offset, b""
            offset = following * full
        return offset, b""

    def _line_start(self, directory: int, floor: int, size: int, lines: int) -> int:
        """Where the last `lines` lines begin; if there are fewer, where what is whole begins."""
        high = size
        wanted = lines  # newlines to find, going back; the one that ends the log is no line of its own
        while high > floor:
            low = max(floor, high - _TAIL_BLOCK_BYTES)
            start, block = self._read(directory, low, high - low)
            while block and start + len(block) < high:  # over a gap that has grown into it, or damage
                start, block = self._read(directory, start + len(block), _TAIL_BLOCK_BYTES)
            if start >= high:
                return high
            block = block[: high - start]
            if high == size and block.endswith(b"\n"):
                wanted += 1
            if (at := behind_newline(block, wanted)) is not None:
                return start + at
            wanted -= block.count(b"\n")
            high = start
        return floor


def _piece(directory: int, offset: int, limit: int, full: int) -> bytes:
    """What the one segment at `offset` holds from there on; b"" when it is gone or ends there."""
    index, within = divmod(offset, full)
    try:
        fd = open_file(directory, b"log.%d" % index)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, min(limit, full - within), within)
    finally:
        os.close(fd)


def _exists(directory: int, index: int) -> bool:
    try:
        return is_plain(os.stat(f"log.{index}", dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _specified_segment_bytes(directory: int) -> int | None:
    try:
        size = ShimSpec.load(read_file(directory, b"spec.json", _SPEC_LIMIT_BYTES)).log_segment_bytes
    except (FileNotFoundError, InvalidRecord):
        return None
    return size if type(size) is int and size > 0 else None
