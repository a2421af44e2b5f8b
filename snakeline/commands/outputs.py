"""`snakeline outputs list` and `snakeline outputs get`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snakeline.commands import completing, words
from snakeline.commands.logs import show_bytes
from snakeline.commands.parameters import NotUnderstood
from snakeline.commands.plain import plain
from snakeline.commands.session import (
    EXIT_REFUSED,
    AsJson,
    JobId,
    Profile,
    Quiet,
    Url,
    asking,
    print_json,
    print_lines,
    print_table,
    stop,
    whole_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from snakeline.client import Client, Output

Rules = Annotated[
    list[str] | None, typer.Option("--rule", help="Outputs of this rule alone; repeatable.", metavar="RULE")
]
Declared = Annotated[bool, typer.Option("--declared", help="Only outputs of finished tasks.")]
Hidden = Annotated[bool, typer.Option("--hidden", help="Also names that begin with a dot.")]


def list_outputs(
    job: JobId,
    *,
    prefix: Annotated[
        str, typer.Option(help="How the paths begin: results/", metavar="PATH", show_default=False)
    ] = "",
    rule: Rules = None,
    declared: Declared = False,
    hidden: Hidden = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the files of a job's working directory. --quiet: their paths."""
    with asking(url, profile, quiet=quiet) as client:
        found = list(
            client.outputs(
                whole_id(client, job), prefix=prefix, hidden=hidden, declared=declared, rules=rule or ()
            )
        )
        if as_json:
            print_json({"items": [_document(each) for each in found], "total": len(found)})
        elif quiet:
            print_lines([each.path for each in found])
        elif found:
            rows = [
                (each.path, words.size(each.size_bytes), words.moment(each.modified_at), each.rule or "")
                for each in found
            ]
            print_table(("Path", "Size", "Written", "Rule"), rows)


def get_outputs(
    job: JobId,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Files, or folders with a slash at the end; by default all.",
            show_default=False,
            autocompletion=completing.behind_tab(completing.output),
        ),
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option("-t", "--to", help="The folder to save below; - is standard output.", metavar="FOLDER"),
    ] = ".",
    archive: Annotated[
        str | None, typer.Option("--zip", help="One archive of a folder, or of all, instead.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    rule: Rules = None,
    declared: Declared = False,
    hidden: Hidden = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fetch files of a job, each below FOLDER at its own path, whole or not at all.

    Files that are there already are not replaced without --force; then nothing is fetched at all.
    """
    if archive is not None and (rule or declared):
        raise typer.BadParameter("--zip has all files of a folder: --rule and --declared do not go with it")
    with asking(url, profile, quiet=quiet) as client:
        job_id = whole_id(client, job)
        if archive is not None:
            if len(paths or ()) > 1:
                raise NotUnderstood("--zip: name one folder, or none for all files")
            _refuse_existing([archive], force=force)
            client.download_folder(job_id, (paths or [""])[0], archive, hidden=hidden)
            _tell([(archive, os.path.getsize(archive))], as_json=as_json, quiet=quiet)
            return
        if to == "-":
            if len(paths or ()) != 1 or (paths or [""])[0].endswith("/"):
                raise NotUnderstood("--to -: name one file")
            show_bytes(client.read(job_id, (paths or [""])[0]))
            return
        chosen = list(_chosen(client, job_id, paths or (), rule or (), declared=declared, hidden=hidden))
        if not chosen:
            stop(f"there is nothing to fetch of job {job_id}", EXIT_REFUSED)
        targets = [place_of(to, path) for path, _ in chosen]
        if len(set(targets)) < len(targets):
            raise NotUnderstood("two of the files would get the same name here: fetch them by --zip")
        _refuse_existing(targets, force=force)
        saved: list[tuple[str, int]] = []
        for (_, source), target in zip(chosen, targets, strict=True):
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            client.download(job_id, source, target)
            saved.append((target, os.path.getsize(target)))
            if not as_json:
                _tell(saved[-1:], as_json=False, quiet=quiet)
        if as_json:
            _tell(saved, as_json=True, quiet=quiet)


def _chosen(
    client: Client, job_id: str, paths: Sequence[str], rules: Sequence[str], *, declared: bool, hidden: bool
) -> Iterator[tuple[str, str | Output]]:
    for path in paths or ("",):
        if path and not path.endswith("/"):
            yield path, path
            continue
        found: Iterable[Output] = client.outputs(
            job_id, prefix=path.lstrip("/"), hidden=hidden, declared=declared, rules=rules
        )
        yield from ((each.path, each) for each in found)


def place_of(folder: str, path: str) -> str:
    """Where below `folder` a file is saved. Its path is the job's word, and leads nowhere else.

    Raises NotUnderstood.
    """
    names = path.split("/")
    if any(name in ("", ".", "..") for name in names):
        raise NotUnderstood(f"{path!r} is no path of a file below a folder")
    return os.path.join(folder, *map(plain, names))


def _refuse_existing(targets: Sequence[str], *, force: bool) -> None:
    there = [] if force else [each for each in targets if os.path.lexists(each)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise NotUnderstood(f"{there[0]}{more} exists: --force replaces, --to names another folder")


def _tell(saved: Sequence[tuple[str, int]], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json({"items": [{"file": file, "size": size} for file, size in saved], "total": len(saved)})
    elif not quiet:
        print_lines([f"{file}  {words.size(size)}" for file, size in saved])


def _document(output: Output) -> dict[str, Any]:
    made_by = None if output.task is None else {"number": output.task, "rule": output.rule}
    when = output.modified_at.isoformat()
    return {"path": output.path, "size": output.size_bytes, "modified_at": when, "task": made_by}
