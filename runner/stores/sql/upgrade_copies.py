"""The copies that upgrades leave beside a store: their names, which there are, and which may go."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

KEPT: Final = 3
_NAME: Final = re.compile(r"\.before-upgrade-from-(?P<revision>\w+)-(?P<made_at>\d{8}T\d{6}\.\d{6}Z)")


@dataclass(frozen=True, slots=True)
class UpgradeCopy:
    """A store as it was before an upgrade, in one file; `revision` is what it was then."""

    path: str
    revision: str
    made_at: str


def incoming(store: str) -> str:
    """Where a copy is made. It gets its name once it is whole: this one is nobody's, and made anew."""
    return f"{os.path.realpath(store)}.before-upgrade.partial"


def new_name(store: str, revision: str) -> str:
    return f"{os.path.realpath(store)}.before-upgrade-from-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"


def found(store: str) -> list[UpgradeCopy]:
    """The copies beside a store, the newest first; none where that cannot be seen."""
    folder, name = os.path.split(os.path.realpath(store))
    copies = []
    with suppress(OSError):
        for entry in os.listdir(folder):
            match = _NAME.fullmatch(entry.removeprefix(name)) if entry.startswith(name) else None
            if match is not None:
                copies.append(UpgradeCopy(f"{folder}/{entry}", match["revision"], match["made_at"]))
    return sorted(copies, key=lambda copy: copy.made_at, reverse=True)


def prune(store: str, newest: str) -> None:
    """Remove all but `newest` and the next `KEPT` - 1. The clock may have been set back: it stays by name."""
    others = [copy for copy in found(store) if copy.path != newest]
    for copy in others[KEPT - 1 :]:
        with suppress(OSError):  # another time
            os.unlink(copy.path)
