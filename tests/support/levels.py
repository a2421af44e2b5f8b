"""The ways to keep jobs apart, each as a service finds it where the stronger ones are not to be had."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.cage import cgroup_mounts
from tests.support.open_house import WITHOUT_LANDLOCK
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cage import Cage
    from tests.support.forked_service import Surroundings
    from tests.support.server import LiveServer


_HOUSE: Final = "tests.support.open_house"
OPEN_HOUSE: Final = (sys.executable, "-m", _HOUSE)
"""Through this, other users can reach this Python and this source tree, as jobs' own users must."""
INSIDE_OPEN_HOUSE: Final = _HOUSE
"""The same, for a service that is forked."""
INSIDE_BARE_HOUSE: Final = f"{_HOUSE} {WITHOUT_LANDLOCK}"


@contextmanager
def isolating_server(place: Path, isolation: str, **more: Any) -> Iterator[LiveServer]:
    """`running_server` with this SNAKELINE_ISOLATION; skips the test where it cannot be had."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server(place, **{"ISOLATION": isolation, **more}))
        except AssertionError as refusal:
            if "cannot be had here" not in str(refusal):
                raise
            pytest.skip(str(refusal))
        yield server


@dataclass(frozen=True)
class Level:
    """A way to keep jobs apart: what the service must find, and what it is not to find."""

    require: str
    without: tuple[str, ...] = ()  # kinds of control groups
    open_house: bool = False  # where other users can reach this Python, as the service's jobs must
    landlock: bool = True

    @property
    def isolation(self) -> str:
        return f"require:{self.require}" if self.require else "auto"

    def surroundings(self, cage: Cage) -> list[Surroundings]:
        """What the service is to enter, for it to find just this."""
        mounts = [mount for kind in self.without for mount in cgroup_mounts()[kind]]
        house = INSIDE_OPEN_HOUSE if self.landlock else INSIDE_BARE_HOUSE
        return [cage.surroundings(without=mounts), *([house] if self.open_house else ())]


# Every level that claims to end all of a job's processes.
LEVELS: Final = {
    "control groups and users": Level("cgroup+uid", open_house=True),
    "control groups": Level("cgroup"),
    "control groups of version 1": Level("cgroup", without=("cgroup2",)),
    "control groups of version 2": Level("cgroup", without=("cgroup",)),
    "process namespaces": Level("pid_namespace", without=("cgroup", "cgroup2")),
    "users": Level("uid", without=("cgroup", "cgroup2"), open_house=True, landlock=False),
}
PARENTS: Final = Level("", without=("cgroup", "cgroup2"))
"""Where nothing but a process's parent says whose it is: nothing certain is claimed."""
