"""The parts of a submission that brings files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Path: TypeAlias = "str | os.PathLike[str]"
Files: TypeAlias = "Sequence[Path] | Mapping[str, Path]"
Part: TypeAlias = "tuple[str, tuple[str | None, bytes | IO[bytes], str]]"

_ANY: Final = "application/octet-stream"


@contextmanager
def parts_of(body: Mapping[str, Any], files: Files, workflow_file: Path | None) -> Iterator[list[Part]]:
    """The job first, then the files, open as long as this lasts. Raises OSError.

    `files` are paths, each to be called by its last name, or the names below `input/` with the paths.
    """
    named = (
        files if isinstance(files, Mapping) else {os.path.basename(os.fspath(path)): path for path in files}
    )
    if len(named) < len(files):
        raise ValueError("two files would have the same name: give a mapping of names to paths")
    with ExitStack() as stack:
        parts: list[Part] = [("job", (None, json.dumps(body).encode(), "application/json"))]
        if workflow_file is not None:
            opened = stack.enter_context(_opened(workflow_file))
            parts.append(("workflow", (os.path.basename(os.fspath(workflow_file)), opened, _ANY)))
        for name, path in named.items():
            parts.append(("files", (name, stack.enter_context(_opened(path)), _ANY)))
        yield parts


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """From its beginning as often as it is sent: of a pipe, whose bytes come once, a copy."""
    with open(path, "rb") as file:
        if file.seekable():
            yield file
            return
        import shutil  # noqa: PLC0415 - for a pipe alone
        import tempfile  # noqa: PLC0415

        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy
