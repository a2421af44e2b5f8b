"""What a shell offers behind TAB that only the service knows: jobs, workflows, labels, files.

It asks for 0.3 s, and without the client, which is slow to load; where nobody answers nothing is offered.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Offers: TypeAlias = "list[tuple[str, str]]"
Query: TypeAlias = "list[tuple[str, object]]"
T = TypeVar("T")

_IS_ASKED: Final = "_SNAKELINE_COMPLETE" in os.environ  # noqa: TID251 - a shell's question, no setting
_WITHIN_S: Final = 0.3
_MOST: Final = 100
_LONGEST_BYTES: Final = 4 * 2**20
_SHORTEST_PREFIX: Final = 8
_WHOLE_ID: Final = 36
# Shells expand and some even run what is offered to them: nothing that means something to one may be in it.
_HARMLESS: Final = re.compile(r"[\w./=@%+,:-]+")
_MEANINGFUL: Final = re.compile(r"[^\w./=@%+,:# -]")
_ALL: Final = ("pending", "running", "completed", "failed", "cancelled")


def behind_tab(complete: Callable[..., Offers]) -> Callable[..., Offers] | None:
    """For typer, which looks closely at each: only where a shell asks. None otherwise."""
    return complete if _IS_ASKED else None


def _jobs(*statuses: str) -> Callable[[typer.Context, str], Offers]:
    def complete(ctx: typer.Context, incomplete: str) -> Offers:
        """The newest jobs: their ids, with status, name and workflow."""
        query: Query = [("limit", _MOST), *(("status", each) for each in statuses)]
        if len(incomplete) >= _SHORTEST_PREFIX:
            query.append(("q", incomplete))
        return _harmless(_asked_for(ctx, "/jobs", query, _job_offer))

    return complete


any_job = _jobs()
active_job = _jobs("pending", "running")
ended_job = _jobs("completed", "failed", "cancelled")
retriable_job = _jobs("failed", "cancelled")


def workflow(ctx: typer.Context) -> Offers:
    """Workflows of the service, with the first sentence of what they do."""
    return _harmless(_asked_for(ctx, "/workflows", [], _workflow_offer))


def label(ctx: typer.Context) -> Offers:
    """Labels of the newest jobs, as KEY=TEXT."""
    found = _asked_for(ctx, "/jobs", [("limit", _MOST)], lambda job: [*job["labels"].items()])
    pairs = {f"{key}={text}" for labels in found for key, text in labels}
    return _harmless((pair, "") for pair in sorted(pairs))


def status() -> Offers:
    return [(each, "") for each in _ALL]


def output(ctx: typer.Context, incomplete: str) -> Offers:
    """Files of the job that is named before."""
    given = str(ctx.params.get("job") or "")
    job_id: str | None = given
    if len(given) < _WHOLE_ID:
        query: Query = [("limit", _MOST), ("q", given)]
        found = _asked_for(ctx, "/jobs", query, _job_offer) if len(given) >= _SHORTEST_PREFIX else []
        ids = [found_id for found_id, _ in found if found_id.startswith(given.lower())]
        job_id = ids[0] if len(ids) == 1 else None
    if job_id is None or not _HARMLESS.fullmatch(job_id) or "/" in job_id:
        return []
    query = [("limit", 5 * _MOST), ("prefix", incomplete)]
    return _harmless(_asked_for(ctx, f"/jobs/{job_id}/outputs", query, lambda each: (each["path"], "")))


def profile() -> Offers:
    """The services that the file with profiles names."""
    from snakeline.client.errors import ProfileError  # noqa: PLC0415 - for a TAB alone
    from snakeline.client.profiles import profiles_file, read_profiles  # noqa: PLC0415

    try:
        profiles, _ = read_profiles(profiles_file(os.environ))  # noqa: TID251 - a client's
    except ProfileError:
        return []
    return _harmless((name, service.url) for name, service in profiles.items())


def _harmless(found: Iterable[tuple[str, str]]) -> Offers:
    return [
        (value, _MEANINGFUL.sub(" ", told).strip()) for value, told in found if _HARMLESS.fullmatch(value)
    ]


def _job_offer(job: Any) -> tuple[str, str]:
    return job["id"], f"{job['status']} {job['name'] or ''} {job['workflow']}"


def _workflow_offer(found: Any) -> tuple[str, str]:
    return found["name"], (found["description"] or "").split(". ")[0]


def _asked_for(ctx: typer.Context, path: str, query: Query, of: Callable[[Any], T]) -> list[T]:
    """What is `of` interest in each item of one page; nothing where that cannot be had in time."""
    from threading import Thread  # noqa: PLC0415 - for a TAB alone

    found: list[T] = []
    url, named = ctx.params.get("url"), ctx.params.get("profile")

    def ask() -> None:
        with suppress(Exception):  # whatever ails it, whoever types is not to be disturbed
            found.extend([of(each) for each in _items(url, named, path, query)])

    # A name that does not resolve may take longer than any time limit of a connection.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_WITHIN_S)
    return [] if asking.is_alive() else found


def _items(url: str | None, named: str | None, path: str, query: Query) -> list[Any]:
    import http.client  # noqa: PLC0415 - for a TAB alone
    import json  # noqa: PLC0415
    from urllib.parse import urlencode, urlsplit  # noqa: PLC0415

    from snakeline.client.profiles import service_of  # noqa: PLC0415

    service = service_of(url=url, profile=named)
    parts = urlsplit(service.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_WITHIN_S)
    try:
        headers = {"Authorization": f"Bearer {service.api_key}"} if service.api_key else {}
        connection.request("GET", f"{parts.path.rstrip('/')}{path}?{urlencode(query)}", headers=headers)
        answer = connection.getresponse()
        items: list[Any] = json.loads(answer.read(_LONGEST_BYTES))["items"]
    finally:
        connection.close()
    return items if answer.status == http.client.OK else []
