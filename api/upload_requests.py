"""Which requests bring files: they may be large, and may take long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MEDIA_TYPE: Final = "multipart/form-data"
BEYOND_FILES_BYTES: Final = 4 * 2**20
"""What such a body may have besides its files: the job itself, and the heads of parts."""
WINDOW_S: Final = 45.0
WINDOW_BYTES: Final = 2**20
"""So much of it has to come in each window: a client that is slower is not waited for."""


def is_upload(method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    if method != "POST" or path != "/jobs":
        return False
    media_type = MEDIA_TYPE.encode()
    return any(
        name == b"content-type" and value.strip().lower().startswith(media_type) for name, value in headers
    )
