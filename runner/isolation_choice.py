"""How jobs are to be kept apart, found out at the start; where it takes root, root is given up here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from runner.backends.launcher_choice import cold_spec
from runner.data_dir import is_in_use
from runner.data_dir import make as make_data_dir
from runner.data_owner import stay_root
from runner.engines.choice import engine_of
from runner.errors import IsolationUnavailable
from runner.isolation import probe
from runner.isolation.secret_places import secret_places
from runner.privilege_separation import (
    NotSeparable,
    UnusableUser,
    find_users,
    separate,
    with_users,
    without_users,
)

if TYPE_CHECKING:
    from runner.isolation.job_users import JobUsers
    from runner.monitor import Monitor
    from runner.ports import WarmSpec
    from runner.settings import RunnerSettings

_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Isolated:
    """How jobs are kept apart, and the monitor where this process has given up being root for that."""

    isolation: probe.Isolation
    monitor: Monitor | None = None


def isolate(settings: RunnerSettings) -> Isolated | None:
    """Find out how jobs can be kept apart; where that takes root, give that up here, for good.

    For a process of one thread, before `build_runner`. None, and nothing done, while another service has the
    data directory. Raises IsolationUnavailable, DataDirUnusable.
    """
    if is_in_use(settings.data_dir):
        return None
    make_data_dir(settings.data_dir)
    found = probe.find(scope_of(settings), wanted=settings.isolation)
    found, users = in_users(settings, found)
    _require_isolation(settings, found)
    if users is None:
        stay_root(settings.data_dir)
        return Isolated(found)
    try:
        monitor = separate(settings, users, *_launchers(settings), found.measures)
    except OSError as error:
        raise IsolationUnavailable(f"Root could not be given up: {error.strerror or error}.") from error
    return Isolated(found, monitor)


def in_users(settings: RunnerSettings, found: probe.Isolation) -> tuple[probe.Isolation, JobUsers | None]:
    """With the users of jobs, where they can be had, and with what stands in the way where not.

    Raises IsolationUnavailable where the service's own was named and cannot be.
    """
    off = settings.isolation == "off" or "uid" in probe.left_out(settings.isolation)
    if off or found.level.name == "none":
        return found, None
    try:
        users = find_users(settings, [spec for spec in _launchers(settings) if spec is not None])
    except UnusableUser as error:
        raise IsolationUnavailable(
            f"{error}: set it to an account, or SNAKELINE_ISOLATION=without:uid."
        ) from error
    except NotSeparable as obstacle:
        return replace(found, level=without_users(found.level, str(obstacle))), None
    return replace(found, level=with_users(found.level)), users


def _launchers(settings: RunnerSettings) -> tuple[WarmSpec, WarmSpec | None]:
    return cold_spec(settings.python), engine_of(settings).warm_spec() if settings.warm_start else None


def find_isolation(settings: RunnerSettings) -> probe.Isolation:
    """How jobs can be kept apart without a change of who this process is. Raises IsolationUnavailable."""
    found = probe.find(scope_of(settings), wanted=settings.isolation)
    _require_isolation(settings, found)
    return found


def _require_isolation(settings: RunnerSettings, found: probe.Isolation) -> None:
    missing = probe.unmet(settings.isolation, found.level)
    if missing is not None:
        raise IsolationUnavailable(missing)


def scope_of(settings: RunnerSettings) -> probe.Scope:
    """What jobs must not read: the data directory, the store where it is a file elsewhere, usual secrets."""
    hidden = secret_places()
    if settings.database_url.startswith(_SQLITE):
        hidden.append(unquote(settings.database_url.removeprefix(_SQLITE).partition("?")[0]) + "*")
    return probe.Scope(
        data_dir=os.fspath(settings.data_dir),
        hidden=tuple(hidden),
        readable=settings.job_readable,
        writable=settings.job_writable,
    )
