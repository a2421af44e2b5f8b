"""What is counted while the service runs: sums by key, and durations by upper bound."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

K = TypeVar("K")

SHORT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""For what is over in a moment: commits, launches, answers."""
LONG_S: Final = (
    0.1,
    0.5,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    10800.0,
    21600.0,
    43200.0,
    86400.0,
    259200.0,
)
"""For jobs: from a tenth of a second to three days."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """`at_most[i]` durations were no longer than `bounds_s[i]`; `count` is of all."""

    bounds_s: tuple[float, ...]
    at_most: tuple[int, ...]
    count: int
    sum_s: float


class Tally(Generic[K]):
    """Sums by key. Thread-safe; they only grow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[K, int] = {}

    def add(self, key: K, number: int = 1) -> None:
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + number

    def read(self) -> Mapping[K, int]:
        with self._lock:
            return dict(self._sums)


class Histogram:
    """How many durations were how long. Thread-safe."""

    def __init__(self, bounds_s: Sequence[float] = SHORT_S) -> None:
        self._bounds_s = tuple(bounds_s)
        self._lock = threading.Lock()
        self._counts = [0] * (len(self._bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """A negative one counts as 0: between two readings of the wall clock somebody may set it."""
        duration_s = max(0.0, duration_s)
        place = bisect_left(self._bounds_s, duration_s)
        with self._lock:
            self._counts[place] += 1
            self._sum_s += duration_s

    def read(self) -> Distribution:
        with self._lock:
            counts, sum_s = list(self._counts), self._sum_s
        at_most = tuple(accumulate(counts))
        return Distribution(self._bounds_s, at_most[:-1], at_most[-1], sum_s)


class Histograms(Generic[K]):
    """A histogram for each key that was seen. Thread-safe."""

    def __init__(self, bounds_s: Sequence[float] = SHORT_S) -> None:
        self._bounds_s = tuple(bounds_s)
        self._lock = threading.Lock()
        self._of: dict[K, Histogram] = {}

    def observe(self, key: K, duration_s: float) -> None:
        found = self._of.get(key)
        if found is None:
            with self._lock:
                found = self._of.setdefault(key, Histogram(self._bounds_s))
        found.observe(duration_s)

    def read(self) -> Mapping[K, Distribution]:
        with self._lock:
            histograms = dict(self._of)
        return {key: histogram.read() for key, histogram in histograms.items()}


def merged(one: Distribution, other: Distribution) -> Distribution:
    """Of both together; they have the same bounds."""
    at_most = tuple(a + b for a, b in zip(one.at_most, other.at_most, strict=True))
    return Distribution(one.bounds_s, at_most, one.count + other.count, one.sum_s + other.sum_s)
