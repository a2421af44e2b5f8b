"""An attempt without a process, whose events a test writes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from runner.attempt_files import AttemptFiles
from runner.engines.error_text import explain
from runner.engines.run_events import EventsReader

if TYPE_CHECKING:
    from pathlib import Path

    from runner.jobs import Progress


class TellingAttempt:
    def __init__(self, root: Path) -> None:
        self.files = AttemptFiles.of(root, "job", 1)
        os.makedirs(self.files.directory)
        os.makedirs(self.files.work)
        self.reader = EventsReader(self.files)

    def append(self, data: bytes) -> None:
        with open(self.files.events, "ab") as file:
            file.write(data)

    def tell(self, event: str, **fields: Any) -> None:
        self.append(json.dumps({"v": 2, "event": event, "t": 1.0, **fields}).encode() + b"\n")

    def fail(self, jobid: int = 1, rule: str = "a", log: Any = (), **fields: Any) -> None:
        self.tell("job_error", jobid=jobid, rule=rule, log=log, **fields)

    def error(self) -> str | None:
        self.reader.advance()
        return explain(self.reader.ended(), b"")

    def progress(self) -> Progress | None:
        self.reader.advance()
        return self.reader.progress
