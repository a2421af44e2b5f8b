"""What every command that asks a service has in common: which service, how it tells, how it ends."""

from __future__ import annotations

import gc
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from snakeline.commands import completing
from snakeline.commands.plain import one_line, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snakeline.client import Client, Job, Problem
    from snakeline.client.profiles import Service
    from snakeline.commands.waits import Waits

EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 65
EXIT_UNREACHABLE: Final = 69
EXIT_INTERRUPTED: Final = 130
_SIGNALLED: Final = 128
_SHORTEST_PREFIX: Final = 8
_WHOLE_ID: Final = 36
_PIPE_WIDTH: Final = 10_000
_BETWEEN_COLUMNS: Final = 3
_LEAST_CUT: Final = 8
_LEAST_FOLDED: Final = 12
_FEWEST_COLUMNS: Final = 2

Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="Address of the service; else SNAKELINE_URL, a profile, or this machine.", metavar="URL"
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="A service in the file with profiles.",
        metavar="NAME",
        autocompletion=completing.behind_tab(completing.profile),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what a script needs.")]
Remote = Annotated[
    bool, typer.Option("--remote", help="Ask the service, not its store on this machine. So does --url.")
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Its id, or the first 8 characters or more.",
        show_default=False,
        autocompletion=completing.behind_tab(completing.any_job),
    ),
]
Attempt = Annotated[
    int | None, typer.Option(help="Which attempt; by default the latest.", metavar="N", min=1)
]


def stop(message: str, code: int) -> NoReturn:
    """End with one line on stderr: what is wrong and what to do."""
    sys.stdout.flush()
    print(f"snakeline: {one_line(message)}", file=sys.stderr)
    raise typer.Exit(code)


def note(message: str, *, quiet: bool = False) -> None:
    """A line for a person, on stderr."""
    if not quiet:
        print(one_line(message), file=sys.stderr, flush=True)


@contextmanager
def asking(
    url: str | None, profile: str | None, *, quiet: bool = False, waits: Waits | None = None
) -> Iterator[Client]:
    """A client of the service that is meant. However it fails, the command ends with one line and a code.

    What it waits for is told by `waits`, unless `quiet`.
    """
    try:
        with _asking(url, profile, quiet=quiet, waits=waits) as client:
            yield client
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _asking(url: str | None, profile: str | None, *, quiet: bool, waits: Waits | None) -> Iterator[Client]:
    from snakeline.client import (  # noqa: PLC0415 - not for --help
        Client,
        ClientError,
        Problem,
        ProfileError,
        UnexpectedAnswer,
        Unreachable,
    )
    from snakeline.commands.parameters import NotUnderstood  # noqa: PLC0415
    from snakeline.commands.waits import Waits as Notices  # noqa: PLC0415

    try:
        service = service_meant(url, profile)
        told = waits or Notices(quiet=quiet)
        with Client(service.url, api_key=service.api_key, on_wait=told) as client:
            gc.enable()  # from here on it may take long
            yield client
    except Problem as problem:
        stop(_told(problem), EXIT_REFUSED)
    except Unreachable as error:
        stop(f"the service does not answer. {error}", EXIT_UNREACHABLE)
    except UnexpectedAnswer as error:
        stop(str(error), EXIT_UNREACHABLE)
    except (NotUnderstood, ProfileError, ValueError) as error:
        stop(str(error), EXIT_USAGE)
    except ClientError as error:
        stop(str(error), EXIT_REFUSED)
    except BrokenPipeError:
        # Who reads our output has had enough; nothing may be written at the exit either.
        sys.stdout = None
        raise typer.Exit(_SIGNALLED + 13) from None
    except OSError as error:
        stop(f"{error.filename or ''} {error.strerror or error}", 1)


def service_meant(url: str | None, profile: str | None) -> Service:
    """Raises ProfileError, NotUnderstood."""
    from snakeline.client.profiles import service_of  # noqa: PLC0415 - not for --help
    from snakeline.commands.parameters import NotUnderstood  # noqa: PLC0415

    if url is not None and profile is not None:
        raise NotUnderstood("name a service by --url or by --profile, not by both")
    return service_of(url=url, profile=profile)


def _told(problem: Problem) -> str:
    fields = "; ".join(f"{e.get('pointer')}: {e.get('detail')}" for e in problem.errors)
    parts = [problem.title or problem.type, problem.detail]
    parts += [] if fields in problem.detail else [fields]
    known = f" (request {problem.request_id})" if problem.request_id else ""
    return f"{problem.status} {'. '.join(part.rstrip('.') for part in parts if part)}{known}"


def whole_id(client: Client, given: str) -> str:
    """The id that begins like this: whoever types one need not type all of it."""
    from snakeline.commands.parameters import NotUnderstood  # noqa: PLC0415

    if len(given) >= _WHOLE_ID:
        return given
    if len(given) < _SHORTEST_PREFIX:
        raise NotUnderstood(f"{given!r} is too short for a job's id: at least {_SHORTEST_PREFIX} characters")
    found = [job for job in client.list(q=given, limit=500).items if job.id.startswith(given.lower())]
    if len(found) == 1:
        return found[0].id
    if not found:
        raise NotUnderstood(f"there is no job whose id begins with {given!r}")
    raise NotUnderstood(
        f"{len(found)} jobs have ids that begin with {given!r}: {', '.join(j.id for j in found[:4])}"
    )


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """In ASCII: what a terminal could take for a command is escaped as JSON escapes it."""
    print(json.dumps(document, indent=indent), flush=True)


def print_lines(lines: Sequence[object]) -> None:
    for line in lines:
        print(one_line(line))


def exit_code_of(job: Job) -> int:
    """As a shell has it: the engine's own code, 128 + the signal that ended it; 1 where neither is known."""
    if job.status == "completed":
        return 0
    if job.exit_code:
        return min(job.exit_code, 255)
    if job.exit_signal:
        return _SIGNALLED + job.exit_signal
    return EXIT_INTERRUPTED if job.status == "cancelled" else 1


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    looks: Mapping[str, str] | None = None,
    cut: int | None = None,
) -> None:
    """As a table; into a pipe nothing is folded, coloured or cut.

    `looks` are styles of whole cells. On a terminal the column `cut` is as wide as there is room for; where
    that is too narrow for all, the last ones are left out.
    """
    from rich import box  # noqa: PLC0415 - slow to load: for whoever sees a table
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH
    )
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    kept = _columns_with_room(widths, console.width, cut)
    if len(kept) < len(headings):
        headings, widths = [headings[n] for n in kept], [widths[n] for n in kept]
        cells = [[row[n] for n in kept] for row in cells]
        cut = kept.index(cut) if cut in kept else None
    table = Table(*headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True  # to be typed again
    table.columns[0].min_width = widths[0]
    if cut is not None:
        others = sum(widths) - widths[cut] + _BETWEEN_COLUMNS * (len(headings) - 1)
        table.columns[cut].no_wrap = True
        table.columns[cut].overflow = "ellipsis"
        table.columns[cut].max_width = max(len(headings[cut]), console.width - others)
    for row in cells:
        table.add_row(*(Text(cell, (looks or {}).get(cell, "")) for cell in row))
    console.print(table)


def _columns_with_room(widths: Sequence[int], room: int, cut: int | None) -> list[int]:
    """The first two stay; the one that can be cut goes last."""
    narrowed = [min(width, _LEAST_CUT if n == cut else _LEAST_FOLDED) for n, width in enumerate(widths)]
    least = [widths[0], *narrowed[1:]]
    kept = [*range(len(widths))]
    for n in sorted(kept[_FEWEST_COLUMNS:], key=lambda n: (n == cut, -n)):
        if sum(least[n] for n in kept) + _BETWEEN_COLUMNS * (len(kept) - 1) > room:
            kept.remove(n)
    return kept


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values under each other; values of several lines keep their lines."""
    width = max(len(name) for name, _ in fields) + 2
    for name, value in fields:
        lines = plain(value).split("\n")
        print(f"{name:<{width}}{lines[0]}")
        for line in lines[1:]:
            print(f"{'':<{width}}{line}")
