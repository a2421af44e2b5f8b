"""`snakeline backup`, `restore` and `upgrade`: what they did, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api import settings as api_settings
from runner import backup, upgrade
from runner.errors import RunnerError
from runner.jobs import JobStatus
from snakeline.failures import Failed

if TYPE_CHECKING:
    from pathlib import Path

    from runner.stores.sql.snapshot import Contents


def take(file: Path, *, force: bool) -> str:
    """Copy the store to `file`. Raises Failed, SettingsError."""
    try:
        made = backup.back_up(api_settings.from_environment().runner(), file, force=force)
    except (backup.BackupRefused, RunnerError) as error:
        raise Failed(str(error)) from error
    return f"{made.file}: {_jobs(made.contents.total)}, {made.size_bytes / 2**20:.1f} MiB, checked"


def put_back(file: Path) -> str:
    """Put `file` in the store's place. Raises Failed, SettingsError."""
    try:
        done = backup.restore(api_settings.from_environment().runner(), file)
    except (backup.BackupRefused, RunnerError) as error:
        raise Failed(str(error)) from error
    lines = [
        f"{done.store}: {_jobs(done.contents.total)} from {file}",
        f"What was there is kept as {done.kept}." if done.kept else "There was no store before.",
        f"The next start {_upgrade(done.contents)}{_plans(done.contents)}.",
    ]
    if done.unknown:
        lines.append(
            f"{done.unknown} of the folders in jobs/ belong to jobs that the backup does not know. They "
            "stay as they are; `snakeline check --repair` lists them."
        )
    return "\n".join(lines)


def bring_up(copy: Path | None) -> str:
    """Upgrade the store, as a start would. Raises Failed, SettingsError."""
    try:
        done = upgrade.upgrade(api_settings.from_environment().runner(), copy)
    except (backup.BackupRefused, RunnerError) as error:
        raise Failed(str(error)) from error
    if done.before is None:
        return f"{done.store}: of revision {done.after} already"
    return (
        f"{done.store}: upgraded from revision {done.before} to {done.after}\n"
        f"As it was before it is kept as {done.copy}."
    )


def _upgrade(contents: Contents) -> str:
    return "" if contents.is_current else "copies and upgrades it, then "


def _plans(contents: Contents) -> str:
    running, pending = contents.jobs[JobStatus.RUNNING], contents.jobs[JobStatus.PENDING]
    ended = contents.total - running - pending
    return (
        f"takes up {running} that the backup calls running, each as its files say; "
        f"starts {pending} pending, but what has run since the backup is not started again; "
        f"leaves {ended} ended"
    )


def _jobs(number: int) -> str:
    return f"{number:,} job{'' if number == 1 else 's'}"
