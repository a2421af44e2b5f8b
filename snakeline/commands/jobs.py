"""`snakeline list`, `show`, `tasks`, `cancel`, `retry` and `delete`."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from snakeline.commands import completing, following, parameters, words
from snakeline.commands.plain import one_line, plain
from snakeline.commands.session import (
    EXIT_REFUSED,
    AsJson,
    Attempt,
    JobId,
    Profile,
    Quiet,
    Url,
    asking,
    exit_code_of,
    note,
    print_fields,
    print_json,
    print_lines,
    print_table,
    whole_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snakeline.client import Client, Job, Task

_SHORT_ID: Final = 18
_WIDE: Final = 110
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--status",
        metavar="STATUS",
        help="pending, running, completed, failed, cancelled; repeatable.",
        autocompletion=completing.behind_tab(completing.status),
    ),
]


def _job_ids(complete: Callable[..., Any]) -> Any:
    return typer.Argument(
        metavar="JOB...",
        help="One or more.",
        show_default=False,
        autocompletion=completing.behind_tab(complete),
    )


ActiveJobs = Annotated[list[str], _job_ids(completing.active_job)]
RetriableJobs = Annotated[list[str], _job_ids(completing.retriable_job)]
EndedJobs = Annotated[list[str], _job_ids(completing.ended_job)]


def list_jobs(
    *,
    status: Statuses = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            help="Of this workflow.",
            metavar="NAME",
            autocompletion=completing.behind_tab(completing.workflow),
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "-l",
            "--label",
            metavar="KEY=TEXT",
            help="With this label.",
            autocompletion=completing.behind_tab(completing.label),
        ),
    ] = None,
    q: Annotated[
        str | None,
        typer.Option("--search", help="A part of the name, or the beginning of an id.", metavar="TEXT"),
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many.", metavar="N")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List jobs, the newest first."""
    with asking(url, profile, quiet=quiet) as client:
        labels = parameters.texts(label or (), what="--label")
        first = client.list(status=status or (), workflow=workflow, q=q, labels=labels, limit=min(limit, 500))
        jobs, total, cursor = first.items, first.total, first.next_cursor
        while cursor is not None and (everything or len(jobs) < limit):
            more = 500 if everything else min(500, limit - len(jobs))
            page = client.list(
                status=status or (), workflow=workflow, q=q, labels=labels, limit=more, cursor=cursor
            )
            jobs, cursor = [*jobs, *page.items], page.next_cursor
        if as_json:
            print_json({"items": [job.raw for job in jobs], "total": total})
        elif quiet:
            print_lines([job.id for job in jobs])
        else:
            _show_jobs(jobs)
            if cursor is not None:
                note(f"{len(jobs)} of {total} jobs: --all lists them, --status and --search choose.")


def _show_jobs(jobs: Sequence[Job]) -> None:
    if not jobs:
        note("There are no such jobs. `snakeline submit demo` makes one.")
        return
    is_narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < _WIDE
    now = datetime.now(UTC)
    rows = [
        (
            job.id[:_SHORT_ID] if is_narrow else job.id,
            words.status_word(job.status),
            job.name or "",
            job.workflow,
            words.done_of(job),
            words.took(job),
            words.age((now - job.created_at).total_seconds()),
        )
        for job in jobs
    ]
    print_table(
        ("Job", "Status", "Name", "Workflow", "Tasks", "Ran", "Submitted"), rows, looks=words.LOOKS, cut=2
    )


def show(
    job: JobId, *, url: Url = None, profile: Profile = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Show a job: what it is, how far it is, why it failed. --quiet: its status alone."""
    with asking(url, profile, quiet=quiet) as client:
        found = client.get(whole_id(client, job))
        if as_json:
            print_json(found.raw)
        elif quiet:
            print(one_line(found.status))
        else:
            print_fields(_fields(found))
            if found.status == "failed":
                _show_tasks(list(client.tasks(found.id, status=["failed"])))


def _fields(job: Job) -> list[tuple[str, object]]:
    raw = job.raw
    how = [job.reason, None if job.exit_code is None else f"exit code {job.exit_code}"]
    how.append(None if job.exit_signal is None else f"signal {job.exit_signal}")
    told = ", ".join(each for each in how if each)
    fields: list[tuple[str, object]] = [
        ("Job", job.id),
        ("Status", words.status_word(job.status) + (f" ({told})" if told else "")),
        *([] if job.queue_position is None else [("Queue", f"place {job.queue_position:,}")]),
        ("Name", job.name or "-"),
        ("Workflow", f"{job.workflow}  {raw.get('workflow_version') or ''}".rstrip()),
        ("Engine", job.engine),
        ("Attempt", job.attempt),
        ("Tasks", words.done_of(job)),
        ("Submitted", words.moment(job.created_at)),
        ("Started", words.moment(job.started_at)),
        ("Ended", words.moment(job.completed_at)),
        ("Ran", words.took(job)),
        ("Cores", job.cores),
    ]
    fields += [("Labels", ", ".join(f"{k}={v}" for k, v in job.labels.items()))] if job.labels else []
    fields += [("Parameters", _compact(job.parameters))] if job.parameters else []
    if job.usage and job.usage.get("max_rss_bytes") is not None:
        used = [f"{words.duration(job.usage.get('cpu_s'))} of CPU", words.size(job.usage["max_rss_bytes"])]
        fields.append(("Used", ", ".join(used)))
    fields += [("Error", job.error_message)] if job.error_message else []
    return fields


def _compact(value: Any) -> str:
    import json  # noqa: PLC0415 - a name too common for the module

    return json.dumps(value)


def tasks(
    job: JobId,
    *,
    status: Statuses = None,
    rule: Annotated[list[str] | None, typer.Option(help="Of this rule; repeatable.", metavar="RULE")] = None,
    attempt: Attempt = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the tasks of a job's run. --quiet: their numbers."""
    with asking(url, profile, quiet=quiet) as client:
        found = list(
            client.tasks(whole_id(client, job), status=status or (), rules=rule or (), attempt=attempt)
        )
        if as_json:
            print_json({"items": [task.raw for task in found], "total": len(found)})
        elif quiet:
            print_lines([task.number for task in found])
        else:
            _show_tasks(found)


def _show_tasks(found: Sequence[Task]) -> None:
    rows = [
        (
            str(task.number),
            words.status_word(task.status),
            task.rule,
            ", ".join(f"{k}={v}" for k, v in task.wildcards.items()),
            words.duration(task.duration_s),
            task.error_message.splitlines()[0] if task.error_message else "",
        )
        for task in found
    ]
    if rows:
        print_table(("Task", "Status", "Rule", "Wildcards", "Ran", "Error"), rows, looks=words.LOOKS, cut=5)


def cancel(
    jobs: ActiveJobs,
    *,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until the last process is gone.")] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Cancel jobs. A running one is cancelled when its last process is gone."""
    with asking(url, profile, quiet=quiet) as client:

        def until_its_end(job_id: str) -> Job:
            try:
                return client.wait(job_id)
            except KeyboardInterrupt:
                note(f"Job {job_id} is being cancelled, whoever waits for that.", quiet=quiet)
                raise

        waited = until_its_end if wait else None
        _each(client, jobs, client.cancel, "is cancelled", waited, as_json=as_json, quiet=quiet)


def retry(
    jobs: RetriableJobs,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the end: the exit code is the job's.")
    ] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run failed or cancelled jobs again, from the finished rules on."""
    with asking(url, profile, quiet=quiet) as client:

        def until_its_end(job_id: str) -> Job:
            with following.may_be_left(job_id, url=url, profile=profile, quiet=quiet):
                ended = client.wait(job_id)
            following.tell_end(ended, quiet=quiet or as_json)
            return ended

        waited = until_its_end if wait else None
        done = _each(client, jobs, client.retry, "is pending again", waited, as_json=as_json, quiet=quiet)
        raise typer.Exit(max((exit_code_of(job) for job in done), default=0) if wait else 0)


def delete(
    jobs: EndedJobs,
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Delete ended jobs with their logs and all their files."""
    with asking(url, profile, quiet=quiet) as client:
        _each(client, jobs, client.delete, "is deleted", as_json=as_json, quiet=quiet)


def _each(
    client: Client,
    given: Sequence[str],
    do: Callable[[str], Job | None],
    what: str,
    wait: Callable[[str], Job] | None = None,
    *,
    as_json: bool,
    quiet: bool,
) -> list[Job]:
    """Each in its turn; what cannot be done keeps nothing else from being done. Ends with 65 then.

    Nothing is done before all are known, and none is waited for before all are done.
    """
    from snakeline.client import Problem  # noqa: PLC0415 - not for --help

    done: dict[str, Job | None] = {}
    ids = [whole_id(client, each) for each in given]
    refused = 0
    for job_id in ids:
        try:
            done[job_id] = job = do(job_id)
        except Problem as problem:
            refused += 1
            note(f"snakeline: {job_id}: {problem} (request {problem.request_id})")
            continue
        if not as_json and not quiet:
            is_asked = job is not None and job.status == "running" and "cancel" in what and wait is None
            print(plain(f"{job_id} {'will be cancelled' if is_asked else what}."), flush=True)
    if wait is not None:
        done |= {job_id: wait(job_id) for job_id in done}
    if as_json:
        documents = [
            dict(job.raw) if job is not None else {"id": job_id, "deleted": True}
            for job_id, job in done.items()
        ]
        print_json({"items": documents, "total": len(documents)})
    if refused:
        raise typer.Exit(EXIT_REFUSED)
    return [job for job in done.values() if job is not None]
