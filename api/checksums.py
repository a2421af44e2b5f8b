"""SHA-256 of jobs' files, on demand: part by part, so that a large one holds up nobody."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from api.problems import Kind, Problem
from runner.job_files import OpenedFile

if TYPE_CHECKING:
    from starlette.requests import Request

    from api.turns import Turns
    from runner.callers_jobs import CallersJobs

OUTPUT_CHANGED = Kind(409, "output-changed", "The file changes while it is read")

_READ_BYTES: Final = 2**20
_PART_BYTES: Final = 2**24


class Checksums:
    """Remembers the latest, each as long as its file stays as it is."""

    def __init__(self, turns: Turns, *, most: int = 10_000) -> None:
        self._turns = turns
        self._most = most
        self._known: OrderedDict[tuple[int, ...], bytes] = OrderedDict()

    async def sha256(self, request: Request, jobs: CallersJobs, file: OpenedFile) -> bytes:
        """The digest of the whole file.

        Raises Problem when it changed meanwhile or the client has gone, and OSError.
        """
        before = file.facts
        may_keep = file.is_settled
        if (known := self._known.get(before)) is not None:
            self._known.move_to_end(before)
            return known
        hasher, offset = hashlib.sha256(), 0
        while offset < file.size_bytes:
            offset = await self._turns.run(request, jobs, _hash_part, file, hasher, offset)
        if OpenedFile.of(file.fd).facts != before:
            raise _changed()
        digest = hasher.digest()
        if may_keep:
            self._known[before] = digest
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return digest


def wants_sha256(want_repr_digest: str) -> bool:
    """Whether `Want-Repr-Digest` asks for it (RFC 9530, section 4)."""
    for each in want_repr_digest.split(","):
        name, _, weight = each.strip().partition("=")
        if name == "sha-256":
            return weight.isascii() and weight.isdigit() and int(weight[:2]) > 0
    return False


def repr_digest(digest: bytes) -> str:
    """The value of `Repr-Digest` (RFC 9530, section 3)."""
    return f"sha-256=:{b64encode(digest).decode()}:"


def _hash_part(file: OpenedFile, hasher: hashlib._Hash, offset: int) -> int:
    """Where the next part begins. Raises Problem when the file has become shorter."""
    end = min(offset + _PART_BYTES, file.size_bytes)
    while offset < end:
        piece = file.read(offset, min(_READ_BYTES, end - offset))
        if not piece:
            raise _changed()
        hasher.update(piece)
        offset += len(piece)
    return offset


def _changed() -> Problem:
    return Problem(OUTPUT_CHANGED, "It was written to meanwhile: ask again when it is done.")
