"""Submits a job with files: a body of `multipart/form-data`, written to disk as it comes."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from anyio import CancelScope
from starlette.requests import ClientDisconnect

from api import schemas
from api.body_limit import MAX_BODY_BYTES
from api.multipart_body import MultipartBody, Part, PartHead
from api.problems import BODY_INCOMPLETE, BODY_TOO_LARGE, BODY_TOO_SLOW, Problem, invalid_fields
from api.request_body import check_content_encoding, parse_model
from api.state import in_thread
from api.upload_requests import WINDOW_BYTES, WINDOW_S
from runner.errors import FieldError, InvalidSpec, ShuttingDown, WorkflowNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from api.state import AppState
    from runner.callers_jobs import CallersJobs
    from runner.job_store import Submitted
    from runner.jobs import JobSpec
    from runner.uploads import Upload

_PIECE_BYTES: Final = 256 * 2**10


async def submit_with_files(
    request: Request, state: AppState, jobs: CallersJobs, idempotency_key: str | None
) -> Submitted:
    """Memory stays flat however large the files are. It counts as a stream of its client.

    Raises Problem, and what `CallersJobs.submit_upload` raises.
    """
    check_content_encoding(request.headers.get("content-encoding", ""))
    received = _Received(jobs)
    body = MultipartBody(request.headers.get("content-type", ""), received.open)
    with state.streams.open(request.scope):
        try:
            async for piece in _pieces(request, state):
                await state.uploads.run(request, jobs, body.feed, piece)
            body.finish()
            return await state.uploads.run(request, jobs, received.submit, idempotency_key)
        finally:
            with CancelScope(shield=True):
                await in_thread(received.close)


async def _pieces(request: Request, state: AppState) -> AsyncIterator[bytes]:
    """The body, in pieces that are worth a thread. Raises Problem, ShuttingDown."""
    piece = bytearray()
    windows = _Windows()
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(windows.left_s()) as limit:
                with state.stop.calling(partial(limit.reschedule, 0)):
                    chunk = await anext(stream)
        except StopAsyncIteration:
            break
        except ClientDisconnect:
            raise Problem(BODY_INCOMPLETE, "The connection ended before the body did.") from None
        except TimeoutError:
            if state.stop.is_set:
                raise ShuttingDown from None
            raise Problem(
                BODY_TOO_SLOW,
                f"At least {WINDOW_BYTES} bytes of the body must arrive every {WINDOW_S:g} s.",
                headers={"Connection": "close"},
            ) from None
        windows.count(len(chunk))
        piece += chunk
        if len(piece) >= _PIECE_BYTES:
            begun = time.monotonic()
            yield bytes(piece)
            piece.clear()
            windows.leave_out(time.monotonic() - begun)
    yield bytes(piece)


class _Windows:
    """How long the client has for what is to come; what our own disk takes is left out."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + WINDOW_S
        self._bytes = 0

    def left_s(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())

    def count(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes >= WINDOW_BYTES:
            self._bytes = 0
            self._ends_at = time.monotonic() + WINDOW_S

    def leave_out(self, took_s: float) -> None:
        self._ends_at += took_s


class _Received:
    """The parts of one body. Everything but making it may wait for the disk."""

    def __init__(self, jobs: CallersJobs) -> None:
        self._jobs = jobs
        self._spec: JobSpec | None = None
        self._upload: Upload | None = None
        self._files = 0

    def open(self, head: PartHead) -> Part:
        """Raises Problem, and what `CallersJobs.begin_upload` and `Upload` raise."""
        if head.name == "job" and self._upload is None:
            return _JobPart(self._begin)
        if head.name not in ("job", "files", "workflow"):
            raise _wrong(f"/{head.name[:100]}", "is unknown; parts are job, files and workflow")
        if self._upload is None:
            raise _wrong("/job", "must be the first part: it says where files go")
        if head.name == "job":
            raise _wrong("/job", "is there twice")
        if not head.filename:
            where = "/workflow" if head.name == "workflow" else f"/files/{self._files}"
            raise _wrong(where, "needs a file name (filename=… in its Content-Disposition)")
        if head.name == "workflow":
            return self._upload.workflow_file(head.filename)
        self._files += 1
        return self._upload.attachment(head.filename)

    def _begin(self, data: bytes) -> None:
        spec = parse_model(data, schemas.SubmitJob).spec()
        try:
            self._upload = self._jobs.begin_upload(spec)
        except WorkflowNotFound as error:
            raise InvalidSpec((FieldError("/workflow", str(error)),)) from None
        self._spec = spec

    def submit(self, idempotency_key: str | None) -> Submitted:
        if self._spec is None or self._upload is None:
            raise _wrong("/job", "is missing: the first part is the job, as JSON")
        try:
            return self._jobs.submit_upload(self._spec, self._upload, idempotency_key=idempotency_key)
        except WorkflowNotFound as error:
            raise InvalidSpec((FieldError("/workflow", str(error)),)) from None

    def close(self) -> None:
        """Leave nothing of a job that was not stored."""
        if self._upload is not None:
            self._upload.close()


class _JobPart:
    def __init__(self, then: Callable[[bytes], None]) -> None:
        self._then = then
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > MAX_BODY_BYTES:
            raise Problem(BODY_TOO_LARGE, f"The part `job` must not be larger than {MAX_BODY_BYTES} bytes.")

    def close(self) -> None:
        self._then(bytes(self._data))


def _wrong(pointer: str, detail: str) -> Problem:
    return invalid_fields(({"pointer": pointer, "detail": detail},))
