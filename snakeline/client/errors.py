"""What the client raises."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2


class ClientError(Exception):
    """Base of everything the client raises."""


class Unreachable(ClientError):
    """No answer came: the service is down, the address is wrong, or the connection broke."""


class UnexpectedAnswer(ClientError):
    """What answers at the address is no Snakeline service: a login page, say, or something else."""


class ChangesMissed(ClientError):
    """Changes of jobs may not have been told: look at the jobs again, and follow from `after` on."""

    def __init__(self, after: str) -> None:
        super().__init__("Changes of jobs may not have been told: look at the jobs again.")
        self.after = after


class WaitTimeout(ClientError):
    """The job had not ended in the time given; it runs on."""


class ProfileError(ClientError):
    """The file with profiles cannot be used; the text says why and what to do."""


class Problem(ClientError):
    """The service refused the request: its RFC 9457 problem document, as an exception.

    `type` is a stable slug to branch on; `errors` has a pointer and a detail per field on 422.
    `retry_after_s` is set where the same request may succeed later. `request_id` finds the request in the
    service's log.
    """

    def __init__(
        self,
        status: int,
        document: Mapping[str, Any],
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        raw = document.get("errors")
        listed = raw if isinstance(raw, list) else []
        self.errors: list[dict[str, str]] = [each for each in listed if isinstance(each, dict)]
        self.retry_after_s = retry_after_s
        self.request_id = request_id or document.get("request_id")
        fields = "; ".join(f"{e.get('pointer')}: {e.get('detail')}" for e in self.errors)
        told = (f"{status} {self.title}", self.detail, "" if fields in self.detail else fields)
        super().__init__(" - ".join(part for part in told if part))


def problem_of(answer: httpx2.Response) -> Problem:
    """The refusal that this answer is; its body has been read."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # Not ours: a proxy between us and the service answered.
        document = {"title": answer.reason_phrase, "detail": answer.text[:500]}
    headers = answer.headers
    return Problem(
        answer.status_code, document, _seconds(headers.get("retry-after")), headers.get("x-request-id")
    )


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110: a number of seconds, or a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
