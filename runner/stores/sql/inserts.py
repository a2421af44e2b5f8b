"""Many rows in few statements."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

# A few sizes of one statement instead of one for each number of rows, so that the driver finds them prepared.
_SIZES: Final = (64, 16, 4, 1)


class Insert:
    """INSERT into one table, whose rows are tuples in the order of `columns`.

    The driver gives up the interpreter at every statement, and under load the writer then waits for
    the event loop to get it back: a statement for many rows is worth far more than the sum of its parts.
    """

    def __init__(self, table: str, columns: Sequence[str]) -> None:
        row = f"({', '.join('?' * len(columns))})"
        head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 - names of our own schema
        self._texts = {size: head + ", ".join([row] * size) for size in _SIZES}

    def run(self, cursor: sqlite3.Cursor, rows: list[tuple[Any, ...]]) -> None:
        """Insert all of `rows` and empty the list."""
        start = 0
        for size in _SIZES:
            while len(rows) - start >= size:
                values = tuple(chain.from_iterable(rows[start : start + size]))
                cursor.execute(self._texts[size], values)
                start += size
        rows.clear()
