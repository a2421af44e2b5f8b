"""Writes a log as the shim does: segments of one size, the first and the newest ones kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runner.attempt_files import SEGMENTS_KEPT, AttemptFiles, ShimSpec

if TYPE_CHECKING:
    from pathlib import Path


class SegmentWriter:
    """Keeps in `written` all that was ever written; `drop_early` deletes before it makes the next segment."""

    def __init__(
        self,
        data_dir: Path,
        *,
        segment_bytes: int,
        drop_early: bool = False,
        job_id: str = "job",
        attempt: int = 1,
    ) -> None:
        self.files = AttemptFiles.of(data_dir, job_id, attempt)
        self.segment_bytes = segment_bytes
        self.size = 0
        self._drop_early = drop_early

    def begin(self, *, with_spec: bool = True) -> None:
        os.makedirs(self.files.directory)
        if with_spec:
            self.write_spec()

    def write_spec(self) -> None:
        spec = ShimSpec(
            job_id="job",
            attempt=self.files.attempt,
            argv=["true"],
            environment={},
            work_dir=self.files.work,
            prepare=[],
            source=None,
            warm_entry=None,
            timeout_s=None,
            stop_grace_s=1.0,
            log_segment_bytes=self.segment_bytes,
            title="job",
        )
        with open(self.files.spec, "wb") as file:
            file.write(spec.dump())

    def write(self, data: bytes) -> None:
        while data:
            index, within = divmod(self.size, self.segment_bytes)
            piece, data = data[: self.segment_bytes - within], data[self.segment_bytes - within :]
            doomed = index - SEGMENTS_KEPT + 1
            if within == 0 and doomed > 0 and self._drop_early:
                os.unlink(self.files.log_segment(doomed))
            fd = os.open(self.files.log_segment(index), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(fd, piece)
            os.close(fd)
            if within == 0 and doomed > 0 and not self._drop_early:
                os.unlink(self.files.log_segment(doomed))
            self.size += len(piece)
