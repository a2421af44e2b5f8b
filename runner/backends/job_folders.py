"""A job's folders beside its working directory, and what its processes may reach. Standard library only."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from runner import job_tree
from runner.attempt_files import InvalidRecord
from runner.isolation.confinement import Confinement, Limits, Places

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles, ShimSpec
    from runner.isolation.confinement import Measures


def make(files: AttemptFiles) -> None:
    """Its home, its temporary folder and its events file. Raises OSError."""
    for folder in (files.home, files.tmp):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(files.events, flags, 0o600))


def confinement(files: AttemptFiles, spec: ShimSpec, measures: Measures) -> Confinement:
    """Raises InvalidRecord: the attempt's limits are none."""
    try:
        limits = Limits.load(spec.confinement)
    except ValueError as error:
        raise InvalidRecord(f"spec.json cannot be read: {error}") from error
    places = Places(own=(files.work, files.home, files.tmp, files.events), reads=(files.config,))
    group = measures.group(os.path.basename(files.job_dir), files.attempt)
    return Confinement(measures, limits, places, group)


def empty_tmp(files: AttemptFiles) -> None:
    """Remove the temporary folder if there is anything in it; for when no process of the job is left."""
    with contextlib.suppress(OSError):
        if not os.listdir(files.tmp):
            return
        fd = os.open(files.job_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            job_tree.remove(fd, os.path.basename(files.tmp), _go_on)
        finally:
            os.close(fd)


def _go_on() -> None:
    """Nobody waits meanwhile."""
