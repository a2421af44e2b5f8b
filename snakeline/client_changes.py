"""Follows changes of jobs for the client: resumed where a stream breaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from snakeline.client_errors import ChangesMissed, Unreachable
from snakeline.client_values import TERMINAL, JobChange
from snakeline.connection import Absence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakeline.connection import Connection


def changes(connection: Connection, path: str, *, after: str | None, what: str) -> Iterator[JobChange]:
    """Each change that the stream at `path` tells, until the service says that it is over.

    Raises ChangesMissed, and Unreachable once an absence of the service lasts for too long.
    """
    absence = Absence()
    status: str | None = None
    while True:
        try:
            for event in connection.events(path, after=after, what=what):
                absence.over()
                after = event.id
                if event.event == "gap":
                    raise ChangesMissed(after)
                if event.event != "start":
                    change = JobChange.from_json(json.loads(event.data), event.id)
                    status = change.status
                    yield change
        except Unreachable as error:
            # Of one job the stream is over with its end; to ask once more tells whether that was all.
            if status not in TERMINAL:
                absence.bear(error)
            status = None
        else:
            return
