"""What is new of running attempts, on its way from those who look to the supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque

    from runner.jobs import Progress, Usage
    from runner.ports import Handle


@dataclass(frozen=True, slots=True)
class Sample:
    """What is new of one attempt; None where nothing is."""

    handle: Handle
    progress: Progress | None = None
    usage: Usage | None = None


def latest(samples: deque[Sample]) -> list[Sample]:
    """Take all of them out: for each attempt what was told last, of progress and of usage."""
    found: dict[Handle, Sample] = {}
    while samples:
        sample = samples.popleft()
        before = found.get(sample.handle)
        if before is not None:
            sample = Sample(sample.handle, sample.progress or before.progress, sample.usage or before.usage)
        found[sample.handle] = sample
    return list(found.values())
