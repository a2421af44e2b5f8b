"""`snakeline logs`."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from snakeline.commands import following
from snakeline.commands.session import (
    AsJson,
    Attempt,
    JobId,
    Profile,
    Quiet,
    Url,
    asking,
    print_json,
    whole_id,
)
from snakeline.commands.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakeline.client import Client


def logs(
    job: JobId,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the attempt has ended.")] = False,
    tail: Annotated[
        int | None, typer.Option("-n", "--tail", min=0, help="The last lines only.", metavar="N")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="From this byte of the log on.", metavar="N")] = 0,
    attempt: Attempt = None,
    task: Annotated[
        int | None, typer.Option(min=0, help="The log file of this task's rule instead.", metavar="N")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="On a terminal, too: every byte as the job wrote it.")
    ] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a job's log: what it wrote, in the order written.

    Into a file or a pipe it goes byte for byte; followed, as text. On a terminal only colours get through.
    With --json each piece is an object with its `text` and the `offset` behind it, to go on from.
    """
    if tail is not None and offset:
        raise typer.BadParameter("--tail and --offset choose different parts")
    if task is not None and (follow or offset):
        raise typer.BadParameter("--task goes with --tail and --attempt alone")
    waits = Waits(quiet=quiet, is_transient=False)
    with asking(url, profile, waits=waits) as client:
        job_id = whole_id(client, job)
        if task is not None:
            data = client.task_log(job_id, task, tail=tail, attempt=attempt)
            show_bytes(iter([data]), raw=raw, as_json=as_json)
        elif follow:
            with following.may_be_left(job_id, url=url, profile=profile, quiet=quiet):
                number = attempt or client.get(job_id).attempt
                pieces = client.follow_log_pieces(job_id, attempt=number, offset=offset, tail=tail)
                if as_json:
                    for piece in pieces:
                        print_json({"offset": piece.offset, "text": piece.text}, indent=None)
                    return
                following.write((piece.text for piece in pieces), raw=raw, waits=waits)
            ended = client.get(job_id)
            if ended.attempt == number and ended.has_ended:
                following.tell_end(ended, quiet=quiet)
        elif tail is not None:
            data = client.log(job_id, attempt=attempt, tail=tail)
            show_bytes(iter([data]), raw=raw, as_json=as_json)
        else:
            _show(client, job_id, attempt, offset, raw=raw, as_json=as_json)


def _show(client: Client, job_id: str, attempt: int | None, offset: int, *, raw: bool, as_json: bool) -> None:
    if as_json:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        for part in client.log_parts(job_id, attempt=attempt, offset=offset):
            if part.start > offset:
                print_json({"offset": part.start, "gap": part.start - offset}, indent=None)
            offset = part.end
            print_json({"offset": offset, "text": decode(part.data)}, indent=None)
        return

    def pieces() -> Iterator[bytes]:
        end = offset
        for part in client.log_parts(job_id, attempt=attempt, offset=offset):
            if part.start > end:
                yield b"\n[snakeline: %d bytes skipped]\n" % (part.start - end)
            end = part.end
            yield part.data

    show_bytes(pieces(), raw=raw, as_json=False)


def show_bytes(pieces: Iterator[bytes], *, raw: bool = False, as_json: bool = False) -> None:
    """As they are; on a terminal, unless `raw`, as text that is no command to it. JSON has them as texts."""
    if not as_json and (raw or not sys.stdout.isatty()):
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    # As in a followed log: every kind of line end is a newline.
    texts = (decode(piece).replace("\r\n", "\n").replace("\r", "\n") for piece in pieces)
    if as_json:
        for text in texts:
            print_json({"text": text}, indent=None)
    else:
        following.write(texts)
