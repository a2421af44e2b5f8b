"""Pointers into a request (RFC 6901), made of keys that may be anything."""

from __future__ import annotations

from typing import Final

MAX_KEY: Final = 128


def escape(key: str) -> str:
    """The key as one part of a pointer, cut to a length that can be shown."""
    shown = key if is_text(key) else key.encode("utf-8", "replace").decode().replace("\0", "?")
    return shown[:MAX_KEY].replace("~", "~0").replace("/", "~1")


def is_text(text: str) -> bool:
    """Whether it can be written to a file as UTF-8 and given to a program."""
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
