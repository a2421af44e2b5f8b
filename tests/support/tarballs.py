"""Archives as a caller would upload them."""

from __future__ import annotations

import io
import tarfile


def tgz(**files: str) -> bytes:
    """A gzip-packed tar of these files; in a name `__` is a slash and `_` a dot."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()
