"""Which Snakemake an attempt was run by, in its own word."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from runner.job_files import open_in_job

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles

_HEAD_BYTES: Final = 256 * 2**10
_VERSION: Final = re.compile(r"[0-9][\w.+!-]{0,63}", re.ASCII)


def told_version(files: AttemptFiles) -> str | None:
    """The version in the attempt's first events; None where they tell of none, as the stand-in's do.

    Snakemake hands its events to another thread: what our hooks tell of the plan may stand before them.
    """
    try:
        with open(open_in_job(files, files.events), "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    for line in head.split(b"\n")[:-1]:
        if b'"snakemake_version"' in line and (version := _version_in(line)) is not None:
            return version
    return None


def _version_in(line: bytes) -> str | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    version = event.get("snakemake_version") if isinstance(event, dict) else None
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None
