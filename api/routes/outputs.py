"""`/jobs/{job_id}/outputs`: the files in a job's working directory, listed and fetched."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from api.accepts import accepts
from api.callers import Reader
from api.checksums import OUTPUT_CHANGED, repr_digest, wants_sha256
from api.content_types import BINARY, BY_SUFFIX, attachment, content_type, inline
from api.documents import (
    BAD_PARAMETER,
    FILE_HEADERS,
    TOO_MANY_STREAMS,
    example,
    header,
    parts,
    problems,
)
from api.examples import TABLE_PREVIEW
from api.file_answer import Conditions, file_answer
from api.made_response import MadeResponse
from api.output_schemas import (
    FetchOutput,
    ListOutputs,
    OutputChecksum,
    OutputPage,
    TablePreview,
    TextPreview,
)
from api.paging import decode_path_cursor, encode_path_cursor, next_link, no_cursor
from api.previews import IMAGE_TYPES, ImagePreview, preview
from api.problems import Problem, invalid_query
from api.query_names import each_once
from api.representations import JSON, json_response, output_document
from api.routes.jobs import known_id
from api.state import in_thread, state_of
from api.zip_archive import ZIP, archive, folder_members
from runner.callers_jobs import CallersJobs
from runner.errors import OutputNotFound
from runner.file_listing import FileQuery, ListedFile, TooManyFiles
from runner.job_files import OpenedFile
from runner.job_outputs import OutputQuery


class _AnyPath(PathConvertor):
    """Names of files may hold line ends, which `path` does not match."""

    regex = "(?s:.*)"


register_url_convertor("any_path", _AnyPath())
router = APIRouter(tags=["outputs"])

_NOWHERE = b"/"
_DOES_NOTHING = "default-src 'none'; frame-ancestors 'none'; sandbox"
_FILE_CONTENT = {
    media_type: {
        "schema": {"type": "string"},
        "example": "sample\tcount\nA\t12\n" if media_type.startswith("text/") else "the file's bytes",
    }
    for media_type in sorted({BINARY, *BY_SUFFIX.values(), *IMAGE_TYPES})
}
_CONTENT = {
    **_FILE_CONTENT,
    ZIP: {"schema": {"type": "string"}, "example": "the archive's bytes"},
    JSON: {"example": TABLE_PREVIEW},
}
_FILE_HEADERS = {
    **FILE_HEADERS,
    "Content-Disposition": header("`attachment`, with the file's name; of an image's preview `inline`."),
    "Repr-Digest": header("Of the whole file, if `Want-Repr-Digest` asks for it."),
}


@router.get(
    "/jobs/{job_id}/outputs",
    operation_id="list_job_outputs",
    summary="List a job's files",
    response_model=OutputPage,
    response_description="A page of the files, sorted by path.",
    responses={
        200: {"headers": {"Link": header('`rel="next"`: the next page (RFC 8288).')}},
        **problems(
            400,
            404,
            422,
            503,
            examples={
                **BAD_PARAMETER,
                400: example(no_cursor()),
            },
        ),
    },
)
async def list_job_outputs(
    request: Request, jobs: Reader, job_id: str, query: Annotated[ListOutputs, Query()]
) -> Response:
    """The plain files below the working directory; it is empty until the job starts.

    Links, files with a second name (hard links), pipes and devices are never handed out: `left_out` counts
    them. Names that begin with a dot, such as `.snakemake`, are shown with `all=true`.
    """
    each_once(request, but=frozenset({"rule"}))
    known_id(job_id)
    files = FileQuery(
        prefix=query.prefix.encode("utf-8", "surrogateescape"),
        start=b"" if query.cursor is None else decode_path_cursor(query.cursor, query),
        limit=query.limit,
        hidden=query.all,
    )
    wanted = OutputQuery(files, declared=query.declared, rules=tuple(query.rule))
    found = await state_of(request).file_walks.run(request, jobs, jobs.outputs, job_id, wanted)
    page = found.files
    cursor = None if page.next_start is None else encode_path_cursor(page.next_start, query)
    return json_response(
        {
            "items": [
                {**output_document(job_id, file), "task": None if task is None else task._asdict()}
                for file, task in zip(page.items, found.producers, strict=True)
            ],
            "total": page.total,
            "total_is_exact": page.total_is_exact,
            "left_out": page.left_out,
            "next_cursor": cursor,
        },
        headers={"Link": next_link(cursor, query, f"/jobs/{job_id}/outputs")} if cursor else None,
    )


@router.get(
    "/jobs/{job_id}/outputs/{path:any_path}",
    operation_id="get_job_output",
    summary="Fetch one of a job's files, or a folder",
    response_class=Response,
    response_description="The file as it is now; or what a parameter asks for instead of it.",
    responses={
        200: {
            "model": OutputChecksum | TablePreview | TextPreview,
            "content": _CONTENT,
            "headers": _FILE_HEADERS,
        },
        **parts("file", _FILE_CONTENT, _FILE_HEADERS),
        **problems(
            404,
            409,
            416,
            422,
            429,
            503,
            examples={
                **BAD_PARAMETER,
                404: example(OutputNotFound("019…")),
                409: example(
                    Problem(OUTPUT_CHANGED, "It was written to meanwhile: ask again when it is done.")
                ),
                429: TOO_MANY_STREAMS,
            },
        ),
    },
)
async def get_job_output(
    request: Request,
    jobs: Reader,
    job_id: str,
    path: str,  # noqa: ARG001 - for the document; the address itself is read, which names any file
    query: Annotated[FetchOutput, Query()],
    *,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    range_: Annotated[str | None, Header(alias="Range", description="One range: `bytes=0-99`.")] = None,
    if_range: Annotated[str | None, Header(description="Honour `Range` only for this `ETag`.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    want_repr_digest: Annotated[
        str, Header(description="`sha-256=10`: answer with `Repr-Digest` (RFC 9530).")
    ] = "",
) -> Response:
    """Byte for byte, to be saved: it is never shown by a browser as a page of this service.

    `path` is an item's `path`, percent-encoded where need be; an item's link is that already. What is no
    plain file below the working directory answers as what does not exist. A file that becomes shorter while
    it is sent breaks the answer off. With `format=zip` (or `Accept: application/zip`) a folder, whose
    address ends with a slash, is sent as an archive; that of the whole working directory is the slash alone.
    `checksum` and `preview` answer about a file. An image is previewed as itself, for `<img>`.
    """
    each_once(request)
    known_id(job_id)
    wanted = _path_of(request, job_id)
    is_folder = wanted == b"" or wanted.endswith(b"/")
    _require_one_question(query, is_folder=is_folder)
    if is_folder and (query.format or accepts(accept, ZIP)):
        return await _folder(request, jobs, job_id, wanted, hidden=query.all)
    file = await in_thread(jobs.open_output, job_id, wanted)
    if query.checksum is not None:
        with closing(file), state_of(request).streams.open(request.scope):
            digest = await state_of(request).checksums.sha256(request, jobs, file)
            listed = ListedFile(wanted, file.size_bytes, file.modified_ns)
            return json_response({**output_document(job_id, listed), "sha256": digest.hex()})
    try:
        if query.preview:
            return await _preview(file, wanted, Conditions(if_none_match))
        headers = {"Content-Disposition": attachment(wanted), "Content-Security-Policy": _DOES_NOTHING}
        if wants_sha256(want_repr_digest):
            with state_of(request).streams.open(request.scope):
                digest = await state_of(request).checksums.sha256(request, jobs, file)
            headers["Repr-Digest"] = repr_digest(digest)
        conditions = Conditions(if_none_match, range_, if_range)
        return file_answer(file, conditions, headers, media_type=content_type(wanted))
    except BaseException:
        file.close()
        raise


def _require_one_question(query: FetchOutput, *, is_folder: bool) -> None:
    """Raises Problem (422) for parameters that do not go together."""
    if query.format is not None and not is_folder:
        raise invalid_query("format", "is for a folder: its address ends with a slash")
    if query.all and not is_folder:
        raise invalid_query("all", "is for a folder: its address ends with a slash")
    if query.checksum is not None and (query.preview or query.format):
        raise invalid_query("checksum", "cannot be combined with preview or format")
    if query.preview and query.format:
        raise invalid_query("preview", "cannot be combined with format")


async def _folder(
    request: Request, jobs: CallersJobs, job_id: str, folder: bytes, *, hidden: bool
) -> Response:
    state = state_of(request)
    members = await in_thread(folder_members, jobs, job_id, folder, hidden=hidden)
    try:
        first = await state.making.run(request, jobs, next, members, None)
    except TooManyFiles:  # none among as many entries as are looked at
        first = None
    if first is None:
        raise OutputNotFound(job_id)
    name = folder[:-1].rpartition(b"/")[2] or job_id.encode()
    headers = {"Content-Disposition": attachment(name + b".zip")}
    pieces = archive(chain([first], members))
    return MadeResponse(state, jobs, pieces, media_type=ZIP, headers=headers)


async def _preview(file: OpenedFile, path: bytes, conditions: Conditions) -> Response:
    """As `file_answer` does, takes the file over once it returns."""
    shown = await in_thread(preview, file, path)
    if isinstance(shown, ImagePreview):
        headers = {
            "Content-Disposition": inline(path),
            # An SVG that is opened by itself is a page: it may have styles and do nothing.
            "Content-Security-Policy": f"{_DOES_NOTHING}; style-src 'unsafe-inline'",
        }
        return file_answer(file, conditions, headers, media_type=shown.media_type)
    file.close()
    return json_response(shown)


def _path_of(request: Request, job_id: str) -> bytes:
    """The path as the address has it, in bytes: names need not be UTF-8. `_NOWHERE` when it can be none.

    A slash that is percent-encoded separates nothing, and no name holds one.
    """
    _, jobs, id_, outputs, *names = request.scope["raw_path"].split(b"/")
    decoded = [unquote_to_bytes(name) for name in names]
    is_ours = (jobs, id_, outputs) == (b"jobs", job_id.encode(), b"outputs")
    return b"/".join(decoded) if is_ours and not any(b"/" in name for name in decoded) else _NOWHERE
