"""Makes a job's working directory from its workflow's folder; used by the shim: standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from runner.folder_copy import belongs, copy_file, copy_tree, entries, folders_around

if TYPE_CHECKING:
    from collections.abc import Callable


def make(work_dir: str, source: str | None, go_on: Callable[[], None]) -> None:
    """The working directory, with `source` copied into it; when it is there already, it is only completed.

    Copied beside it and renamed, so that a copy cut short is not taken for whole. It is not synced: a
    power cut may leave files of the copy empty or short, and the next attempt copies those again. `go_on`
    is called between files and stops the copy by raising. What was copied until then is removed. Raises
    OSError.
    """
    if os.path.isdir(work_dir):
        if source is not None:
            _complete(source, work_dir, go_on, folders_around(work_dir))
        return
    fresh = work_dir + ".new"
    if os.path.lexists(fresh):  # an earlier attempt was cut short
        _remove(fresh)
    try:
        if source is None:
            os.mkdir(fresh)
        else:
            copy_tree(source, fresh, go_on, folders_around(work_dir))
        os.rename(fresh, work_dir)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(fresh)  # on a full disk, others need the room
        raise


def take_in(attachments: str, target: str) -> None:
    """Move the files that came with the job into the folder `target`; there may be none, or none any more.

    Nothing that stands there is replaced: what a submission brings has names of its own. A move that was cut
    short goes on here. Raises OSError.
    """
    if not os.path.isdir(attachments):
        return
    if os.path.islink(target):  # of the workflow's own, and it may lead anywhere
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    os.makedirs(target, exist_ok=True)
    for entry in entries(attachments):
        place = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            take_in(entry.path, place)
        elif not os.path.lexists(place):
            os.rename(entry.path, place)
    _remove(attachments)


def _remove(tree: str) -> None:
    import shutil  # noqa: PLC0415 - rare, and its imports would make every fork dearer

    shutil.rmtree(tree)


def _complete(source: str, target: str, go_on: Callable[[], None], around: set[tuple[int, int]]) -> None:
    """Copy again what a power cut has cut short: files with the source's time and less than its content.

    The time of a copy is set when its content is, and only the content may not have reached the disk. A
    file that the job has written itself has another time.
    """
    go_on()
    try:
        found = entries(source)
    except OSError:
        return  # the workflow is gone: what was copied of it stays as it is
    for entry in found:
        place = os.path.join(target, entry.name)
        if entry.is_symlink() or not os.path.lexists(place) or os.path.islink(place):
            continue
        if entry.is_dir():
            if belongs(entry, around):
                _complete(entry.path, place, go_on, around)
        elif entry.is_file():
            about, copied = entry.stat(), os.lstat(place)
            if copied.st_mtime_ns == about.st_mtime_ns and copied.st_size < about.st_size:
                os.unlink(place)
                copy_file(entry.path, place, go_on)
                go_on()
