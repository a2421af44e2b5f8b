"""What a workflow's folder holds, as one short text; and whether it may hold something else by now."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from dataclasses import dataclass
from typing import Final

from runner.folder_copy import walk

PREFIX: Final = "sha256:"
_JUST_NOW_S: Final = 0.1  # coarser than any file system's clock ticks


def version_of(folder: str, around: set[tuple[int, int]]) -> str:
    """`sha256:` and 64 digits: the same for the same paths, contents, links and executable files.

    The digest of one line for each file, link and folder, sorted by path: `f`, `x` (an executable file), `l`
    or `d`, the path, and the SHA-256 of the content or of the link's target, with NUL between. What a copy
    leaves out does not count, and neither do times, owners and other permissions. Raises OSError.
    """
    lines = []
    for path, entry in walk(folder, around):
        if entry.is_symlink():
            kind, content = b"l", hashlib.sha256(os.fsencode(os.readlink(entry.path))).hexdigest()
        elif entry.is_dir():
            kind, content = b"d", ""
        else:
            with open(entry.path, "rb") as file:
                kind = b"x" if os.fstat(file.fileno()).st_mode & stat.S_IXUSR else b"f"
                content = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(b"\0".join((kind, os.fsencode(path), content.encode())) + b"\n")
    lines.sort(key=lambda line: line.split(b"\0")[1])
    return PREFIX + hashlib.sha256(b"".join(lines)).hexdigest()


@dataclass(frozen=True, slots=True)
class Look:
    """A folder as it looked, without the content of its files: what `stat` says of each.

    `is_settled`: whatever changes after the look looks different then. A file changed within the same tick of
    the clock may not.
    """

    digest: bytes
    is_settled: bool
    took_s: float


def look_at(folder: str, around: set[tuple[int, int]]) -> Look:
    """Raises OSError."""
    begun, begun_ns = time.perf_counter(), time.time_ns()
    newest_ns = os.stat(folder).st_ctime_ns
    lines = []
    for path, entry in walk(folder, around):
        about = entry.stat(follow_symlinks=False)
        newest_ns = max(newest_ns, about.st_ctime_ns)
        lines.append(f"{path}\0{about.st_mode} {about.st_ino} {about.st_size} {about.st_ctime_ns}")
    lines.sort()
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).digest()
    is_settled = newest_ns < begun_ns - _JUST_NOW_S * 1e9
    return Look(digest, is_settled, time.perf_counter() - begun)
