"""Which launcher starts the next attempts: warm where that can be had, else cold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from runner.backends.launcher_process import LauncherProcess, OwnLauncher
from runner.errors import BackendUnavailable, IsolationUnavailable
from runner.isolation.confinement import Measures
from runner.ports import WarmSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.monitor import Monitor

_log = structlog.get_logger(__name__)

_ENDS_IN_A_ROW = 3


class LauncherChoice:
    """Not thread-safe: it belongs to the supervisor's thread, as launchers do.

    `measures` is what was found last to keep jobs apart.
    """

    def __init__(
        self,
        *,
        python: str,
        warm: Callable[[], WarmSpec | None],
        open_files: int,
        measures: Callable[[], Measures],
        monitor: Monitor | None,
    ) -> None:
        """`warm` and `measures` are asked again at each look: see `LocalBackend`."""
        self._warm = warm
        self._cold = cold_spec(python)
        self._open_files = open_files
        self._measures_now = measures
        self.measures = Measures()
        self._monitor = monitor
        self._ends = 0  # in a row, before they were ready
        self._unusable: WarmSpec | None = None  # its interpreter or imports end before they are ready

    def look(self) -> None:
        """Find out again what keeps jobs apart. Raises BackendUnavailable."""
        try:
            self.measures = self._measures_now()
        except IsolationUnavailable as error:
            raise BackendUnavailable(str(error)) from error

    def fits(self, launcher: LauncherProcess | None) -> bool:
        """Whether a new one would be as this one is, after another look. Raises BackendUnavailable."""
        before = self.measures
        self.look()
        return launcher is not None and self.measures == before and self._wanted() == launcher.spec

    def start(self) -> LauncherProcess:
        """A new one. Raises BackendUnavailable."""
        spec = self._wanted()
        if self._ends >= _ENDS_IN_A_ROW:
            self._ends = 0
            if spec is self._cold:
                raise BackendUnavailable("The launcher ended three times in a row before it was ready.")
            _log.warning("launcher.cold", detail="It ended three times in a row while importing the engine.")
            self._unusable, spec = spec, self._cold
        if spec is not self._cold:
            try:
                return self._started(spec, warm=True)
            except BackendUnavailable as error:
                _log.warning("launcher.cold", detail=str(error))
                self._unusable = spec
        return self._started(self._cold, warm=False)

    def was_ready(self) -> None:
        self._ends = 0

    def has_ended(self, launcher: LauncherProcess) -> None:
        self._ends += 0 if launcher.is_ready else 1

    def _wanted(self) -> WarmSpec:
        """What the launcher should be; a warm one that could not be had is not tried again unchanged."""
        spec = self._warm()
        return self._cold if spec is None or spec == self._unusable else spec

    def _started(self, spec: WarmSpec, *, warm: bool) -> LauncherProcess:
        if self._monitor is not None:
            return LauncherProcess(self._monitor.start_launcher(spec, warm=warm), spec)
        started = OwnLauncher(spec, warm=warm, open_files=self._open_files, measures=self.measures)
        return LauncherProcess(started, spec)


def cold_spec(python: str) -> WarmSpec:
    """A launcher whose forks execute engines."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return WarmSpec(python, isolated=True, packages={"runner": folder}, preload=None)
