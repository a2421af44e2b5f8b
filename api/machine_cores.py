"""How many cores this process may use: the machine's, less what affinity and control groups take away."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath


def machine_cores(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores for jobs, at least 1: the affinity mask, cut by the tightest CPU quota of cgroup v2 or v1.

    A quota of 2.5 cores counts as 2. See cgroups(7) and sched_getaffinity(2).
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [*_quotas_v2(proc, cgroups), *_quotas_v1(proc, cgroups)]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _quotas_v2(proc: Path, cgroups: Path) -> list[float]:
    found = []
    for folder in _own_groups(proc, "", cgroups):
        match _words(folder / "cpu.max"):
            case [quota, period] if quota != "max":
                found.append(int(quota) / int(period))
    return found


def _quotas_v1(proc: Path, cgroups: Path) -> list[float]:
    found = []
    for folder in _own_groups(proc, "cpu", cgroups / "cpu"):
        match _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us"):
            case [quota], [period] if int(quota) > 0:
                found.append(int(quota) / int(period))
    return found


def _own_groups(proc: Path, controller: str, root: Path) -> list[Path]:
    """The folders of this process's group and of every group around it, the root included."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return [root]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            return [root / group, *(root / parent for parent in group.parents)]
    return [root]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
