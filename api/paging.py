"""Opaque cursors for keyset pages: bound to the order and the filters they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from api.problems import INVALID_CURSOR, Problem

if TYPE_CHECKING:
    from api.schemas import ListJobs

_DIGEST_BYTES = 9
_SEQ_BYTES = 8


def encode_cursor(after_seq: int, filters: ListJobs) -> str:
    return base64.urlsafe_b64encode(after_seq.to_bytes(_SEQ_BYTES) + _digest(filters)).decode().rstrip("=")


def decode_cursor(cursor: str, filters: ListJobs) -> int:
    """The `seq` the page before ended at. Raises Problem (400): not ours, or for other filters."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    seq = int.from_bytes(raw[:_SEQ_BYTES])
    if len(raw) != _SEQ_BYTES + _DIGEST_BYTES or not 0 <= seq < 2**63:
        raise Problem(INVALID_CURSOR, "Use the next_cursor of an earlier answer as it is.")
    if raw[_SEQ_BYTES:] != _digest(filters):
        raise Problem(
            INVALID_CURSOR, "This cursor belongs to other filters or another order: keep them the same."
        )
    return seq


def next_link(cursor: str, filters: ListJobs) -> str:
    """The `Link` header of a page that has a next one (RFC 8288), relative to the service's address."""
    query = [("cursor", cursor), *_pairs(filters), ("limit", str(filters.limit))]
    return f'</jobs?{urlencode(query)}>; rel="next"'


def _pairs(filters: ListJobs) -> list[tuple[str, str]]:
    """Everything that decides which jobs are listed and how, but not how many at a time."""
    pairs: list[tuple[str, str]] = []
    for name, value in filters.model_dump(
        mode="json", exclude={"cursor", "limit"}, exclude_none=True
    ).items():
        pairs += [(name, str(item)) for item in (value if isinstance(value, list) else [value])]
    return pairs


def _digest(filters: ListJobs) -> bytes:
    text = urlencode(sorted(_pairs(filters)))
    return hashlib.sha256(text.encode("utf-8")).digest()[:_DIGEST_BYTES]
