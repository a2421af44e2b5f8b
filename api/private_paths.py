"""Keeps from callers where the service's files are: messages name them by their settings instead."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from api.settings import ServiceSettings

_SQLITE = "sqlite:///"


class PrivatePaths:
    """The data directory and the store, which messages of the runner name in full for people on call."""

    def __init__(self, settings: ServiceSettings) -> None:
        url = settings.database_url or ""
        store = unquote(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else ""
        data_dir = settings.data_dir.absolute()
        named = [
            (store, "<DATABASE_URL>"),
            (str(data_dir), "<DATA_DIR>"),
            (os.path.realpath(data_dir), "<DATA_DIR>"),
        ]
        self._named = [(path, name) for path, name in named if path.strip("/")]

    def hidden(self, text: str) -> str:
        """`text` as callers may read it."""
        for path, name in self._named:
            text = text.replace(path, name)
        return text
