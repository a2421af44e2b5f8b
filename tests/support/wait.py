"""Wait for a condition, with a deadline: the only way a test waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    *,
    timeout_s: float = 30.0,
    what: str = "the condition",
    first_pause_s: float = 0.002,
) -> T:
    """The condition's first true value; AssertionError naming `what` when time is up.

    Pauses between two looks grow from `first_pause_s` to 50 ms.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = first_pause_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what} (last value: {value!r})")
        time.sleep(pause_s)  # noqa: TID251 - the one place where tests pause between two looks
        pause_s = min(pause_s * 1.5, 0.05)
