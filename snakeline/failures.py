"""What keeps a command from doing its work on this machine."""

from __future__ import annotations


class Failed(Exception):
    """Nothing was changed; the text is one line that says why."""
