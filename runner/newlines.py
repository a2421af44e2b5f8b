"""Lines in a block of bytes, counted from its end."""

from __future__ import annotations


def behind_newline(block: bytes, count: int) -> int | None:
    """Where what follows the `count`-th newline from the end begins; None when there are fewer."""
    if block.count(b"\n") < count:
        return None
    at = len(block)
    for _ in range(count):
        at = block.rfind(b"\n", 0, at)
    return at + 1
