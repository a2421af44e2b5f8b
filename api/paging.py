"""Opaque cursors for keyset pages: bound to the order and the filters they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from api.problems import INVALID_CURSOR, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

_DIGEST_BYTES = 9
_SEQ_BYTES = 8
_ROUNDS: Final = range(4)


class Cursors:
    """Cursors that hold a row's number in the store, and tell nobody how many rows others have.

    The number is permuted by a Feistel network of four rounds with the secret.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def encode(self, after_seq: int, filters: BaseModel) -> str:
        digest = _digest(filters)
        number = self._permuted(after_seq, digest, _ROUNDS)
        return base64.urlsafe_b64encode(number.to_bytes(_SEQ_BYTES) + digest).decode().rstrip("=")

    def decode(self, cursor: str, filters: BaseModel) -> int:
        """The `seq` the page before ended at. Raises Problem (400): not ours, or for other filters."""
        try:
            raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raw = b""
        if len(raw) != _SEQ_BYTES + _DIGEST_BYTES:
            raise no_cursor()
        digest = _digest(filters)
        if raw[_SEQ_BYTES:] != digest:
            raise Problem(
                INVALID_CURSOR, "This cursor belongs to other filters or another order: keep them the same."
            )
        seq = self._permuted(int.from_bytes(raw[:_SEQ_BYTES]), digest, reversed(_ROUNDS))
        if seq >= 2**63:
            raise no_cursor()
        return seq

    def _permuted(self, number: int, digest: bytes, rounds: Iterable[int]) -> int:
        left, right = number >> 32, number & 0xFFFFFFFF
        for turn in rounds:
            text = bytes([turn]) + right.to_bytes(4) + digest
            word = hmac.digest(self._secret, text, "sha256")[:4]
            left, right = right, left ^ int.from_bytes(word)
        return right << 32 | left  # the other way round, so that the same rounds backwards undo it


def no_cursor() -> Problem:
    """For what cannot be a cursor of ours."""
    return Problem(INVALID_CURSOR, "Use the next_cursor of an earlier answer as it is.")


def encode_path_cursor(start: bytes, filters: BaseModel) -> str:
    return base64.urlsafe_b64encode(start + _digest(filters)).decode().rstrip("=")


def decode_path_cursor(cursor: str, filters: BaseModel) -> bytes:
    """Where the page begins that a cursor leads to. Raises Problem (400) as `decode_cursor` does."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    if len(raw) < _DIGEST_BYTES:
        raise no_cursor()
    if raw[-_DIGEST_BYTES:] != _digest(filters):
        raise Problem(INVALID_CURSOR, "This cursor belongs to other filters: keep them the same.")
    return raw[:-_DIGEST_BYTES]


def next_link(cursor: str, filters: BaseModel, path: str = "/jobs") -> str:
    """The `Link` header of a page that has a next one (RFC 8288), relative to the service's address."""
    limit = filters.model_dump(include={"limit"}).items()
    query = [("cursor", cursor), *_pairs(filters), *((name, str(value)) for name, value in limit)]
    return f'<{path}?{urlencode(query)}>; rel="next"'


def _pairs(filters: BaseModel) -> list[tuple[str, str]]:
    """Everything that decides what is listed and how, but not how much at a time."""
    pairs: list[tuple[str, str]] = []
    for name, value in filters.model_dump(
        mode="json", exclude={"cursor", "limit"}, exclude_none=True
    ).items():
        pairs += [(name, str(item)) for item in (value if isinstance(value, list) else [value])]
    return pairs


def _digest(filters: BaseModel) -> bytes:
    text = urlencode(sorted(_pairs(filters)))
    return hashlib.sha256(text.encode("utf-8")).digest()[:_DIGEST_BYTES]
