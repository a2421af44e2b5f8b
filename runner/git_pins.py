"""`NAME.git.toml`: a workflow that is one commit of a git repository, and where its checkout is kept."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runner.beneath import is_path

SUFFIX: Final = ".git.toml"
PIN_BYTES: Final = 16 * 2**10
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_KEYS: Final = frozenset({"repository", "commit", "folder"})


class UnusablePin(Exception):
    """The file does not name a commit of a repository; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class GitPin:
    """`folder` is the workflow's below the repository's top, "" for the top itself."""

    name: str
    repository: str
    commit: str
    folder: str = ""

    def checkout(self, checkouts: Path) -> Path:
        """Where the whole commit is, once it was fetched."""
        return checkouts / f"{self.name}@{self.commit}"


def read_pin(name: str, path: Path) -> GitPin:
    """Raises UnusablePin, FileNotFoundError."""
    try:
        with open(path, "rb") as file:
            text = file.read(PIN_BYTES).decode()
        raw = tomllib.loads(text)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UnusablePin(f"it cannot be read as TOML: {error}") from error
    if unknown := sorted(raw.keys() - _KEYS):
        raise UnusablePin(f"{unknown[0]!r} is unknown; known: {', '.join(sorted(_KEYS))}")
    repository, commit, folder = (raw.get(key, "") for key in ("repository", "commit", "folder"))
    if not isinstance(repository, str) or not repository or repository.startswith("-"):
        raise UnusablePin("`repository` must be an address or a path")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise UnusablePin("`commit` must be a full commit id, 40 or 64 hexadecimal digits; a branch moves")
    if not isinstance(folder, str) or (folder and not is_path(folder.encode("utf-8", "surrogateescape"))):
        raise UnusablePin("`folder` must be a path below the repository's top, without ..")
    return GitPin(name, repository, commit, folder)
