"""What this machine offers to keep jobs apart, found out at start and reported as it is."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IsolationLevel:
    """`name` is what holds for every job; `detail` says what that means for a cancel."""

    name: str
    detail: str


def probe() -> IsolationLevel:
    """Find the level by looking, never by assuming.

    Every job has its own session, environment, descriptors and working directory, and a subreaper that
    ends its whole tree as best it can. Where signals cannot be sent through a pidfd (a filtered
    pidfd_open(2)), nothing can be stopped safely and the level says so.
    """
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except OSError as error:
        return IsolationLevel("none", f"jobs cannot be stopped here: pidfds are refused ({error.strerror})")
    return IsolationLevel("subreaper", "best effort: every descendant is found through its parent and killed")
