"""What the service answers the client, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})

J = TypeVar("J")


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as the API showed it at one moment; `raw` is the whole answer, newer fields included."""

    id: str
    status: str
    workflow: str
    attempt: int
    engine: str
    created_at: datetime
    reason: str | None
    name: str | None
    exit_code: int | None
    exit_signal: int | None
    error_message: str | None
    started_at: datetime | None
    completed_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False)
    etag: str | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], etag: str | None = None) -> Self:
        return cls(
            id=raw["id"],
            status=raw["status"],
            workflow=raw["workflow"],
            attempt=raw["attempt"],
            engine=raw["engine"],
            created_at=datetime.fromisoformat(raw["created_at"]),
            reason=raw["reason"],
            name=raw["name"],
            exit_code=raw["exit_code"],
            exit_signal=raw["exit_signal"],
            error_message=raw["error_message"],
            started_at=_time(raw["started_at"]),
            completed_at=_time(raw["completed_at"]),
            raw=dict(raw),
            etag=etag,
        )

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def parameters(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.raw["parameters"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.raw["labels"]
        return found

    @property
    def cores(self) -> int:
        return int(self.raw["cores"])

    @property
    def priority(self) -> int:
        return int(self.raw["priority"])

    @property
    def queue_position(self) -> int | None:
        """Of a pending job: its place in its tenant's queue, 1 is next. None otherwise, or if not told."""
        found: int | None = self.raw.get("queue_position")
        return found

    @property
    def progress(self) -> Mapping[str, int] | None:
        """The run's tasks: `total`, `done`, `running`, `failed`, `up_to_date`; None until it told of them."""
        found: Mapping[str, int] | None = self.raw["progress"]
        return found

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """What the latest attempt used: `cpu_s`, `max_rss_bytes` and so on; None while nothing is known."""
        found: Mapping[str, Any] | None = self.raw["usage"]
        return found

    @property
    def duration_s(self) -> float | None:
        """Seconds from the engine's start to the end; None while either is unknown."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class JobPage(Generic[J]):
    """One page of jobs; `next_cursor` continues behind it and is None on the last page."""

    items: list[J]
    total: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes `[start, end)` of a log."""

    data: bytes = field(repr=False)
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Text of a followed log, and the offset in the log behind it: from there on it is resumed.

    Of a gap the text is a line in brackets that says how many bytes are no longer kept.
    """

    text: str
    offset: int
    is_gap: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A file in a job's working directory; `url` is right for any name, relative to the service.

    `task` and `rule` are those of the finished task whose declared output it is; None for all other files.
    """

    path: str
    size_bytes: int
    modified_at: datetime
    url: str
    task: int | None = None
    rule: str | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        made_by = raw.get("task") or {"number": None, "rule": None}
        when = datetime.fromisoformat(raw["modified_at"])
        return cls(raw["path"], raw["size"], when, raw["links"]["self"], made_by["number"], made_by["rule"])


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a job's run, which Snakemake calls a job; `raw` is the whole answer.

    `number` means this task within one attempt of the job. `error_message` is there once it has failed.
    """

    number: int
    rule: str
    status: str
    wildcards: Mapping[str, str]
    started_at: datetime | None
    ended_at: datetime | None
    error_message: str | None
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        return cls(
            number=raw["number"],
            rule=raw["rule"],
            status=raw["status"],
            wildcards=raw["wildcards"],
            started_at=_time(raw["started_at"]),
            ended_at=_time(raw["ended_at"]),
            error_message=raw["error"]["message"] if raw["error"] else None,
            raw=raw,
        )

    @property
    def duration_s(self) -> float | None:
        """Seconds from its latest start to its end; None while either is unknown."""
        duration_s: float | None = self.raw["duration_s"]
        return duration_s


@dataclass(frozen=True, slots=True)
class JobChange:
    """A change of a job: what it was (`kind`), and the status it led to.

    `job` is the job in short as it was when the change was told, which may be later. To follow from here on,
    give `id` as `after`.
    """

    id: str
    job_id: str
    kind: str
    status: str
    attempt: int
    at: datetime
    job: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], change_id: str) -> Self:
        return cls(
            id=change_id,
            job_id=raw["job_id"],
            kind=raw["kind"],
            status=raw["status"],
            attempt=raw["attempt"],
            at=datetime.fromisoformat(raw["at"]),
            job=raw["job"],
        )


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
