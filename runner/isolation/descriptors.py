"""How many files this process may have open, and how many its jobs may."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Let this process open as many files as it is allowed to: each running job takes one.

    Returns the limit as it was, for jobs: programs that use select(2) break above 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def restore_limit(soft: int) -> None:
    """Undo `raise_limit`, in a process that inherited it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
