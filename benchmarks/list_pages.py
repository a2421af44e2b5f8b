"""List pages and writes of the store with a million jobs: see store_pages.py for every page by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.rows import Row, compared, limited
from benchmarks.store_pages import LIMIT_MS, measure

if TYPE_CHECKING:
    from benchmarks.rows import Options

_FEW: Final = 10_000
_FLAT: Final = 1.5  # how much more a write may cost in the large store


def run(options: Options) -> list[Row]:
    many = 100_000 if options.quick else 1_000_000
    rounds = 3 if options.quick else 7
    _, few_writes = measure(options.directory, _FEW, rounds)
    pages, writes = measure(options.directory, many, rounds)
    slowest = max(pages, key=lambda name: pages[name].max_ms)
    plain = pages["no filter"]
    rows = [
        limited(
            f"slowest page of {len(pages)} kinds, {many:,} jobs ({slowest})",
            pages[slowest].max_ms,
            "ms",
            at_most=LIMIT_MS,
        ),
        Row(f"the plain list, {many:,} jobs", plain.median_ms, "ms"),
    ]
    for name, cost in writes.items():
        what, _, unit = name.partition(": ")
        rate = not unit
        rows.append(
            compared(
                what,
                cost,
                unit or "per second",
                f"with {_FEW:,} jobs",
                few_writes[name],
                at_most=None if rate else _FLAT,
                at_least=1 / _FLAT if rate else None,
            )
        )
    return rows
