"""How statuses, times and sizes are written for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakeline.client import Job

ICONS: Final[Mapping[str, str]] = {
    "pending": "○",
    "running": "●",
    "completed": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "up_to_date": "=",
}
STYLES: Final[Mapping[str, str]] = {
    "pending": "dim",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "up_to_date": "dim",
}
LOOKS: Final[Mapping[str, str]] = {f"{ICONS[status]} {status}": style for status, style in STYLES.items()}
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def status_word(status: str) -> str:
    """With its sign: colour is not all that tells them apart."""
    return f"{ICONS.get(status, '?')} {status}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest_s:02} s"


def age(seconds: float) -> str:
    """How long ago, roughly."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def moment(at: datetime | None) -> str:
    """In the reader's own time zone."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(job: Job) -> str:
    """How long it ran, or has been running."""
    if job.started_at is not None and not job.has_ended and job.status == "running":
        return duration((datetime.now(UTC) - job.started_at).total_seconds())
    return duration(job.duration_s)


def done_of(job: Job) -> str:
    progress = job.progress
    if progress is None:
        return "-"
    failed = f", {progress['failed']} failed" if progress["failed"] else ""
    return f"{progress['done']}/{progress['total']}{failed}"


def seconds(text: str) -> float:
    """`90`, `90s`, `30m`, `2h`, `1d` or `1w` in seconds. Raises ValueError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    value = float(number)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value * _UNITS[unit]
