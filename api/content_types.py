"""What a job's file is called on its way to a browser: what it is saved as, never what it could do there."""

from __future__ import annotations

import unicodedata
from typing import Final
from urllib.parse import quote

BINARY: Final = "application/octet-stream"
# Nothing that a browser would run or that could lead it on: no HTML, SVG, XML or script.
BY_SUFFIX: Final = {
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "text/plain",
    ".log": "text/plain",
    ".md": "text/plain",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".webp": "image/webp",
    ".yaml": "text/plain",
    ".yml": "text/plain",
}


def content_type(path: bytes) -> str:
    """By the end of the name alone: the file itself is not asked."""
    name = path.rpartition(b"/")[2]
    stem, dot, suffix = name.rpartition(b".")
    known = BY_SUFFIX.get((dot + suffix).decode("latin-1").lower(), BINARY) if stem else BINARY
    return f"{known}; charset=utf-8" if known.startswith("text/") else known


def attachment(path: bytes) -> str:
    """`Content-Disposition` for saving the file under its own name (RFC 6266), whatever is in that name."""
    return _disposition("attachment", path)


def inline(path: bytes) -> str:
    """The same for showing it in a page; for what is safe there alone."""
    return _disposition("inline", path)


def _disposition(kind: str, path: bytes) -> str:
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    # Control characters, and those that turn the direction of writing to hide a suffix.
    name = "".join("_" if unicodedata.category(each)[0] in "CZ" and each != " " else each for each in name)
    plain = "".join(each if each.isascii() and each not in '"\\%' else "_" for each in name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{extended}'
