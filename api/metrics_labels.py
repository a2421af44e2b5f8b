"""Values of labels that come from outside, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from api.request_counts import OTHER
from runner.jobs import UPLOADED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_WORKFLOWS: Final = 50


class WorkflowLabels:
    """Registered workflows by their names, at most `MOST_WORKFLOWS`; all else is `other`.

    What a name was told as it stays until the service ends: a counter that changed its label would
    look like one that had jumped. Not thread-safe.
    """

    def __init__(self, registered: Callable[[], Iterable[str]], most: int = MOST_WORKFLOWS) -> None:
        self._registered = registered
        self._most = most
        self._label_of: dict[str, str] = {}
        self._own = {UPLOADED, OTHER}

    def refresh(self) -> None:
        """Give what has been registered since a label, while there are some left."""
        for name in self._registered():
            if name not in self._label_of and len(self._own) < self._most + 2:
                self._own.add(name)
                self._label_of[name] = name

    def of(self, name: str) -> str:
        return self._label_of.setdefault(name, name if name in self._own else OTHER)

    def every(self) -> list[str]:
        """All labels there are."""
        return sorted(self._own)
