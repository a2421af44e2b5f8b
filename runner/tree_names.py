"""Names for the files of a tree that somebody else may choose."""

from __future__ import annotations

import re
from typing import Final

_MAX_BYTES: Final = 1024
_MAX_NAME_BYTES: Final = 200
_MAX_DEPTH: Final = 32
_MAX_NAMES: Final = 10_000

ATTACHMENT_NAME: Final = re.compile(r"\w[\w.+=@-]*", re.ASCII)
"""Input files' names become part of shell commands: nothing that a shell reads as anything but a letter."""
WORKFLOW_NAME: Final = re.compile(r"(?!\.\.?$)[\w.][\w.+=@, -]*", re.ASCII)
"""A workflow has files such as `.gitignore` as well."""


class UnusableName(Exception):
    """The file cannot be called so; the text says why, without the name."""


class TreeNames:
    """The paths of one tree: each once, whatever the case, and none that leads out of it."""

    def __init__(self, name: re.Pattern[str]) -> None:
        """`name` is what each name on the way must match in full."""
        self._name = name
        self._taken: dict[str, tuple[str, bool]] = {}  # folded -> as written, is a folder

    def claim(self, path: str, *, is_folder: bool = False) -> None:
        """Take the path, and the folders on the way. Raises UnusableName."""
        names = path.split("/")
        if len(path) > _MAX_BYTES or len(names) > _MAX_DEPTH or max(map(len, names)) > _MAX_NAME_BYTES:
            raise UnusableName("is too long")
        for name in names:
            if not self._name.fullmatch(name):
                raise UnusableName(
                    "is no usable path: letters without accents, digits and _ . + = @ - make a name, "
                    "which begins with a letter, digit or _; / stands between names"
                )
        for end in range(1, len(names)):
            self._take("/".join(names[:end]), is_folder=True)
        self._take(path, is_folder=is_folder)

    def _take(self, path: str, *, is_folder: bool) -> None:
        known = self._taken.get(path.casefold())
        if known is None:
            if len(self._taken) == _MAX_NAMES:
                raise UnusableName(f"is one too many: {_MAX_NAMES} files and folders are the most")
            self._taken[path.casefold()] = (path, is_folder)
        elif known[0] != path:
            raise UnusableName("differs from another only by small and capital letters")
        elif not (is_folder and known[1]):
            raise UnusableName("is there twice")
