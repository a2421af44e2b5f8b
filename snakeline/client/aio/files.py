"""What a job leaves behind: its files, its report, its crate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from snakeline.client.aio.calls import AsyncCalls, job_path
from snakeline.client.answers import document_of
from snakeline.client.errors import Unreachable
from snakeline.client.values import Output

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Sequence


class AsyncFileCalls(AsyncCalls):
    """The files of jobs."""

    async def outputs(
        self,
        job_id: str,
        *,
        prefix: str = "",
        hidden: bool = False,
        declared: bool = False,
        rules: Sequence[str] = (),
    ) -> AsyncIterator[Output]:
        """The files in the working directory, sorted by path, page by page.

        Only those whose path begins with `prefix`; with `hidden` also names that begin with a dot. `declared`
        ones are outputs of tasks that have finished, `rules` says of which rules alone.
        """
        params: dict[str, Any] = {"prefix": prefix, "all": hidden, "limit": 500}
        params |= {"declared": declared, "rule": [*rules]}
        async for item in self._items(job_path(job_id, "/outputs"), params):
            yield Output.from_json(item)

    async def download(self, job_id: str, path: str | Output, to: str | os.PathLike[str]) -> None:
        """Fetch a file of the job's and save it as `to`, whole or not at all; an existing one is replaced."""
        await self._connection.save(_output_path(job_id, path), to)

    async def read(self, job_id: str, path: str | Output) -> AsyncIterator[bytes]:
        """A file of the job's, piece by piece, taken up where its connection breaks.

        Raises Unreachable where that cannot be, or where the file has become another meanwhile.
        """
        async for piece in self._connection.pieces(_output_path(job_id, path)):
            if piece is None:
                raise Unreachable("The file has changed while it was read.")
            yield piece

    async def download_folder(
        self, job_id: str, folder: str, to: str | os.PathLike[str], *, hidden: bool = False
    ) -> None:
        """Save the files below a folder as the ZIP archive `to`, as `download` does; "" is all of them."""
        path = f"/outputs/{quote(folder.strip('/'))}/" if folder.strip("/") else "/outputs/"
        await self._connection.save(job_path(job_id, path), to, params={"format": "zip", "all": hidden})

    async def checksum(self, job_id: str, path: str | Output, *, timeout_s: float = 3600.0) -> str:
        """The SHA-256 of a file of the job's, in hexadecimal digits: the service reads all of it."""
        answer = await self._connection.send(
            "GET", _output_path(job_id, path), params={"checksum": "sha256"}, timeout_s=timeout_s
        )
        return str(document_of(answer)["sha256"])

    async def report(self, job_id: str, to: str | os.PathLike[str], *, timeout_s: float = 600.0) -> None:
        """Have the engine report on an ended job, and save that page as `to`, as `download` does."""
        await self._connection.send("POST", job_path(job_id, "/report"), timeout_s=timeout_s)
        await self._connection.save(job_path(job_id, "/report"), to)

    async def ro_crate(
        self, job_id: str, to: str | os.PathLike[str], *, license_url: str | None = None
    ) -> None:
        """Save an ended job's run as an RO-Crate, the ZIP archive `to`, as `download` does.

        `license_url` is what the crate says of its license: an address, or any text.
        """
        params = {"format": "zip"} | ({} if license_url is None else {"license": license_url})
        await self._connection.save(job_path(job_id, "/ro-crate"), to, params=params)


def _output_path(job_id: str, path: str | Output) -> str:
    return path.url if isinstance(path, Output) else job_path(job_id, f"/outputs/{quote(path)}")
