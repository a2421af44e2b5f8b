"""The page's files, in memory: read once, packed once, named by what is in all of them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class PageFile:
    content: bytes
    packed: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Page:
    """`digest` changes with any of the files: addresses that name it may be kept for ever."""

    digest: str
    index: PageFile
    files: dict[str, PageFile]


def page_folder() -> Path:
    """Beside this module where it is installed, in the checkout otherwise."""
    package = Path(__file__).resolve().parent
    installed = package / "bundled_dashboard"
    return installed if installed.is_dir() else package.parent / "dashboard"


@cache
def page() -> Page:
    """All of it, read when it is first asked for. Raises OSError."""
    return read_page(page_folder())


def read_page(folder: Path) -> Page:
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _MEDIA_TYPES}
    every = hashlib.blake2b(digest_size=8)
    for name, content in found.items():
        every.update(b"%s %d\n%s" % (name.encode(), len(content), content))
    digest = every.hexdigest()
    index = found.pop(_INDEX).replace(b"{assets}", f"page/{digest}".encode())
    files = {name: _file(name, content) for name, content in found.items()}
    return Page(digest, _file(_INDEX, index), files)


def _file(name: str, content: bytes) -> PageFile:
    return PageFile(content, gzip.compress(content, 9, mtime=0), _MEDIA_TYPES[Path(name).suffix])
