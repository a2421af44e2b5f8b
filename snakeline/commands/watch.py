"""`snakeline watch`: a live view on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from snakeline.commands import completing, following, words
from snakeline.commands.plain import one_line
from snakeline.commands.session import (
    AsJson,
    Profile,
    Quiet,
    Url,
    asking,
    exit_code_of,
    print_json,
    whole_id,
)
from snakeline.commands.streams import is_screen
from snakeline.commands.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.live import Live

    from snakeline.client import Client, Job
    from snakeline.commands.live_view import JobsView, JobView, Node

_LOOK_S: Final = 1.0
_SHOWN_JOBS: Final = 200


def watch(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            help="By default all that wait or run.",
            show_default=False,
            autocompletion=completing.behind_tab(completing.any_job),
        ),
    ] = None,
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Watch a job rule by rule until it ends.

    Without JOB: all that wait or run, until Ctrl-C.

    On a terminal as a view that is kept up to date, elsewhere a line for each change. The exit code is the
    job's.
    """
    waits = Waits(quiet=quiet)
    with asking(url, profile, waits=waits) as client:
        if job is None:
            if as_json or quiet or not is_screen(sys.stdout):
                _tell_all_changes(client, as_json=as_json, quiet=quiet)
            else:
                _show_active(client, waits)
            return
        found = client.get(whole_id(client, job))
        with following.may_be_left(found.id, url=url, profile=profile, quiet=quiet):
            if quiet:
                found = client.wait(found.id)
            elif as_json or not is_screen(sys.stdout):
                found = _tell_changes(client, found, as_json=as_json)
            else:
                found = _show_job(client, found, waits)
        following.tell_end(found, quiet=quiet or as_json)
        raise typer.Exit(exit_code_of(found))


def _states(client: Client, job: Job) -> Iterator[tuple[Job, list[Node]]]:
    """The job and its rules now, and after each change, at least once a second, until it has ended."""
    looked_at: Job | None = None
    nodes: list[Node] = []
    while True:
        if job is not looked_at and job.started_at is not None:
            nodes = client.graph(job.id, attempt=job.attempt)["nodes"]
        looked_at = job
        yield job, nodes
        if job.has_ended:
            return
        job = client.next_change(job, within_s=_LOOK_S)


def _show_job(client: Client, job: Job, waits: Waits) -> Job:
    from snakeline.commands.live_view import JobView, live  # noqa: PLC0415 - slow to load: for a view alone

    view = JobView()
    with _restored_terminal(), live(view) as shown, _told_within(view, shown, waits):
        for job, nodes in _states(client, job):  # noqa: B020, PLR1704 - the newest
            view.show(job, nodes)
            shown.refresh()
    view.print_last()
    return job


@contextmanager
def _told_within(view: JobView | JobsView, shown: Live, waits: Waits) -> Iterator[None]:
    """Let the view say what is waited for, where a line of its own would go across it."""

    def tell(text: str) -> None:
        view.trouble = text
        shown.refresh()

    waits.elsewhere = tell
    try:
        yield
    finally:
        waits.elsewhere = None
        view.trouble = ""


def _show_active(client: Client, waits: Waits) -> None:
    from snakeline.client.pauses import pause  # noqa: PLC0415
    from snakeline.commands.live_view import JobsView, live  # noqa: PLC0415 - slow to load: for a view alone

    view = JobsView()
    with _restored_terminal(), live(view) as shown, _told_within(view, shown, waits):
        while True:
            running = client.list(status=("running",), limit=_SHOWN_JOBS)
            pending = client.list(status=("pending",), limit=_SHOWN_JOBS, order="asc")
            view.show(running.items, pending.items, running.total, pending.total)
            shown.refresh()
            pause(_LOOK_S)


@contextmanager
def _restored_terminal() -> Iterator[None]:
    """Let a signal that ends us be an exception, so that the terminal is left as it was."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_changes(client: Client, job: Job, *, as_json: bool) -> Job:
    last = ""
    for job, nodes in _states(client, job):  # noqa: B020, PLR1704 - the newest
        if as_json:
            line = json.dumps({"job": dict(job.raw), "rules": nodes})
            told = json.dumps([job.status, job.attempt, nodes])
        else:
            rules = " ".join(_rule(node) for node in nodes if _is_under_way(node["counts"]))
            told = one_line(f"{job.status} attempt {job.attempt}: {words.done_of(job)} tasks  {rules}")
            line = told
        if told != last:
            print(line, flush=True)
            last = told
    return job


def _is_under_way(counts: dict[str, int]) -> bool:
    return bool(counts["running"] or counts["failed"])


def _rule(node: Node) -> str:
    counts = node["counts"]
    failed = f",{counts['failed']} failed" if counts["failed"] else ""
    return f"{node['rule']}={counts['completed']}/{counts['total'] - counts['up_to_date']}{failed}"


def _tell_all_changes(client: Client, *, as_json: bool, quiet: bool) -> None:
    for change in client.events():
        document: dict[str, Any] = {
            "id": change.id,
            "job_id": change.job_id,
            "kind": change.kind,
            "status": change.status,
            "attempt": change.attempt,
            "at": change.at.isoformat(),
        }
        if as_json:
            print_json({**document, "job": dict(change.job)}, indent=None)
        elif quiet:
            print(one_line(change.job_id), flush=True)
        else:
            line = (
                f"{words.moment(change.at)} {change.job_id} {change.kind}: {words.status_word(change.status)}"
            )
            print(one_line(f"{line} {change.job.get('name') or ''}"), flush=True)
