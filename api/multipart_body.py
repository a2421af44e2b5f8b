"""Takes a body of `multipart/form-data` apart as it comes (RFC 7578)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.problems import MALFORMED_MULTIPART, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_HEAD_FIELDS: Final = 8
_MAX_HEAD_BYTES: Final = 4096


class Part(Protocol):
    """Where the content of a part goes."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """All of it was written."""


@dataclass(frozen=True, slots=True)
class PartHead:
    name: str
    filename: str | None


class MultipartBody:
    """Give it the body piece by piece; it asks `open_part` where each part goes."""

    def __init__(self, content_type: str, open_part: Callable[[PartHead], Part]) -> None:
        """Raises Problem for a Content-Type without a usable boundary."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        self._open_part = open_part
        self._part: Part | None = None
        self._fields: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._is_complete = False
        if not boundary:
            raise _malformed("its Content-Type names no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end,
                    "on_end": self._complete,
                },
                max_header_count=_MAX_HEAD_FIELDS,
                max_header_size=_MAX_HEAD_BYTES,
            )
        except FormParserError as error:
            raise _malformed(str(error)) from None

    def feed(self, data: bytes) -> None:
        """Raises Problem for what is no multipart body, and what `open_part` and its parts raise."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed("its parts cannot be told apart") from None

    def finish(self) -> None:
        """Raises Problem when the end is missing."""
        if not self._is_complete:
            raise _malformed("its last boundary is missing")

    def _begin(self) -> None:
        self._fields = {}
        self._field = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._fields[self._field.lower()] = self._value
        self._field = self._value = b""

    def _open(self) -> None:
        kind, options = parse_options_header(self._fields.get(b"content-disposition", b""))
        encoding = self._fields.get(b"content-transfer-encoding", b"binary").strip().lower()
        if kind != b"form-data" or b"name" not in options or encoding not in (b"binary", b"8bit", b"7bit"):
            raise _malformed("each part needs Content-Disposition: form-data with a name, and no encoding")
        filename = options.get(b"filename")
        try:
            head = PartHead(options[b"name"].decode(), None if filename is None else filename.decode())
        except UnicodeDecodeError:
            raise _malformed("the names of its parts and files must be UTF-8") from None
        self._part = self._open_part(head)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(data[start:end])

    def _end(self) -> None:
        assert self._part is not None
        self._part.close()
        self._part = None

    def _complete(self) -> None:
        self._is_complete = True


def _malformed(detail: str) -> Problem:
    return Problem(MALFORMED_MULTIPART, f"The body is no multipart/form-data: {detail}.")
