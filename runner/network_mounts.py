"""Whether a folder lies on a network file system, where SQLite and locks keep fewer promises."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = "/proc/self/mountinfo"
ADVICE: Final = "A local disk is better: see SNAKELINE_DATA_DIR in docs/settings.md."
_NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs"}
    | {"lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "wekafs"}
)


def network_file_system(folder: Path, *, mounts: str | None = None) -> str | None:
    """The type of the network file system that `folder` lies on (`nfs4`); None on any other or if unknown."""
    path = os.path.realpath(folder)
    found, longest = None, -1
    try:
        with open(mounts or MOUNTS, "rb") as lines:
            for line in lines:
                # proc_pid_mountinfo(5): mount point fifth, type behind a lone hyphen.
                before, _, behind = line.partition(b" - ")
                point = _unescaped(before.split()[4])
                # A later mount at the same place covers the earlier one.
                if len(point) >= longest and _is_below(path, point):
                    found, longest = os.fsdecode(behind.split()[0]), len(point)
    except (OSError, IndexError):
        return None
    return found if found in _NETWORK else None


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescaped(field: bytes) -> str:
    for code in (b"040", b"011", b"012", b"134"):
        field = field.replace(b"\\" + code, bytes([int(code, 8)]))
    return os.fsdecode(field)
