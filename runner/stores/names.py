"""What `JobQuery.q` means, the same in every store."""

from __future__ import annotations

from typing import Final

# Where counting stops, so that no page waits for its total: for labels or times alone, for a name
# alone, and for several filters together, where every candidate has to be looked at.
TOTAL_STOPS_AT: Final = 10_000
NAMED_STOPS_AT: Final = 5_000
COMBINED_STOPS_AT: Final = 2_500
ID_PREFIX_MIN_CHARS: Final = 8
SUBSTRING_MIN_CHARS: Final = 3


def folded(text: str) -> str:
    """The text with the differences of case removed (full Unicode case folding)."""
    return text.casefold()


def id_prefix(q: str) -> str | None:
    """The beginning of an id that `q` asks for; None when it is too short to mean one.

    Ids begin with the time, so that a few characters would be shared by every job there is.
    """
    return q.lower() if len(q) >= ID_PREFIX_MIN_CHARS else None


def matches(q: str, *, job_id: str, name: str | None) -> bool:
    """Whether a job is found by `q`: a part of its name, or the beginning of its id."""
    prefix = id_prefix(q)
    if prefix is not None and job_id.startswith(prefix):
        return True
    if name is None:
        return False
    part = folded(q)
    if len(part) < SUBSTRING_MIN_CHARS:
        return folded(name).startswith(part)
    return part in folded(name)
