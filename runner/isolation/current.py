"""How jobs are kept apart now: what was found at the start, until it is no longer there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.isolation.confinement import Measures
    from runner.isolation.probe import Isolation, IsolationLevel


_log = structlog.get_logger(__name__)


class CurrentIsolation:
    """Found anew when the folders of control groups have gone, as when somebody unmounts them."""

    def __init__(self, found: Isolation, find: Callable[[], Isolation] | None = None) -> None:
        """Without `find` it stays as it was found. `measures` raises what `find` does."""
        self._found = found
        self._find = find
        self._tell()

    @property
    def level(self) -> IsolationLevel:
        return self._found.level

    def measures(self) -> Measures:
        """For the next launch."""
        if self._find is not None and not self._found.measures.are_there():
            self._found = self._find()
            self._tell()
        return self._found.measures

    def _tell(self) -> None:
        level = self._found.level
        (_log.info if level.certain else _log.warning)(
            "isolation", found=level.label, protections=list(level.protections), detail=level.detail
        )
