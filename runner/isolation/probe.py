"""What this machine offers to keep jobs apart: found out at start by trying, and reported as it is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from runner.errors import IsolationUnavailable
from runner.isolation import call_filter, cgroup_places, landlock, pid_namespace
from runner.isolation.confinement import FileRules, Measures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.isolation.cgroups import AttemptGroup
DEFAULT_WRITABLE: Final = ("/dev/shm",)  # noqa: S108
"""POSIX semaphores live there: without them Python's multiprocessing fails."""

KILLS: Final = ("cgroup", "pid_namespace", "uid", "subreaper", "none")
"""How a job is ended, the surest way first. All but the last two are certain."""
PROTECTIONS: Final = ("landlock", "memory_limit", "pid_namespace", "uid")
MAY_LEAVE: Final = "best effort: a job that is the service's user can leave its control group by itself"
EXCLUDABLE: Final = ("cgroup", "landlock", "uid")
_TRIAL: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trial.py")
_TRIAL_ID: Final = "trial"
_WITHIN_S: Final = 10.0
_WHAT_TO_DO: Final = {
    "cgroup": "give the service a writable control group (systemd: Delegate=yes)",
    "memory_limit": "give the service a control group with the memory controller (systemd: Delegate=yes)",
    "landlock": "it needs Linux 5.19 or newer with Landlock switched on (lsm=landlock,…)",
    "uid": "start the service as root, with a data directory and an engine that every user can reach",
    "pid_namespace": "install bubblewrap and allow user namespaces",
    "subreaper": "allow pidfd_open(2) and pidfd_send_signal(2)",
}


@dataclass(frozen=True, slots=True)
class IsolationLevel:
    """`name` is how a job's processes are ended; `protections` is what else holds for every job.

    `detail` says what that means, and what is missing and why. `certain` is false where the kill can
    only try its best.
    """

    name: str
    protections: tuple[str, ...]
    detail: str
    certain: bool

    @property
    def label(self) -> str:
        """As told of a job."""
        return self.name if self.certain else f"{self.name} (best effort)"


@dataclass(frozen=True, slots=True)
class Isolation:
    """The level, and the measures that make it."""

    level: IsolationLevel
    measures: Measures


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be kept from jobs, and what is to be left to them, as absolute paths."""

    data_dir: str
    hidden: tuple[str, ...] = ()
    """Besides the data directory; one that ends with `*` means every name that begins so."""
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()


@dataclass(slots=True)
class _Findings:
    """What was tried, and what stood in the way of what."""

    measures: Measures
    troubles: dict[str, str] = field(default_factory=dict)


def find(scope: Scope, *, wanted: str = "auto", is_service: bool = True) -> Isolation:
    """Find the level by trying, never by assuming.

    `wanted` is `auto` or `off`, or `require:` and what `unmet` is asked about, or `without:` and what is to
    be left out. Where control groups need it,
    a service moves to a group of its own; one who only asks leaves everything as it is. Raises
    IsolationUnavailable when the scope contradicts itself.
    """
    obstacle = _obstacle_to_signals()
    if obstacle is not None:
        return Isolation(IsolationLevel("none", (), obstacle, certain=False), Measures())
    if wanted == "off":
        return Isolation(_level(_Findings(Measures(), {"all": "switched off"})), Measures())
    findings = _Findings(Measures(limits=True))
    excluded = left_out(wanted)
    if "cgroup" in excluded:
        findings.troubles["groups"] = "switched off"
    else:
        _find_groups(findings, scope, is_service=is_service)
    if "landlock" in excluded:
        findings.troubles["files"] = "switched off"
    else:
        _find_file_rules(findings, scope)
    _try(findings)
    if "pid_namespace" in requirements(wanted):
        _find_namespace(findings)
    return Isolation(_level(findings), findings.measures)


def requirements(wanted: str) -> tuple[str, ...]:
    """What `require:a+b` names; nothing for any other value."""
    return _named(wanted, "require")


def left_out(wanted: str) -> tuple[str, ...]:
    """What `without:a+b` names."""
    return _named(wanted, "without")


def _named(wanted: str, kind: str) -> tuple[str, ...]:
    given, _, names = wanted.partition(":")
    return tuple(names.split("+")) if given == kind else ()


def misnamed(wanted: str) -> str | None:
    """What is wrong with the value of SNAKELINE_ISOLATION, if anything."""
    for kind, known in (
        ("require", tuple(dict.fromkeys((*KILLS[:-1], *PROTECTIONS)))),
        ("without", EXCLUDABLE),
    ):
        for name in _named(wanted, kind):
            if name not in known:
                return f"{name} is unknown behind {kind}: known are {', '.join(known)}"
    return None


def unmet(wanted: str, level: IsolationLevel) -> str | None:
    """One line that says which required part is missing and what to do; None when all is there."""
    has = {*level.protections, level.name}
    if level.name != "none":
        has.add("subreaper")
    missing = [each for each in requirements(wanted) if each not in has]
    if not missing:
        return None
    advice = "; ".join(f"{each}: {_WHAT_TO_DO.get(each, 'unknown')}" for each in missing)
    return f"SNAKELINE_ISOLATION={wanted} cannot be had here ({level.name}: {level.detail}). {advice}."


# ---------------------------------------------------------------- looking


def _obstacle_to_signals() -> str | None:
    """Without pidfds nothing can be stopped safely, and the level says so."""
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except OSError as error:
        return f"jobs cannot be stopped here: pidfds are refused ({error.strerror})"
    return None


def _find_groups(findings: _Findings, scope: Scope, *, is_service: bool) -> None:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mountinfo = file.read()
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            own = file.read()
        prefix = f"snakeline-{cgroup_places.identity(scope.data_dir)}."
    except OSError as error:
        findings.troubles["groups"] = error.strerror or str(error)
        return
    found = cgroup_places.hierarchies(mountinfo, own)
    groups = cgroup_places.prepare(
        found, aside=prefix.rstrip(".") + cgroup_places.ASIDE if is_service else None
    )
    if not groups:
        findings.troubles["groups"] = "no control group can be made here"
    findings.measures = replace(findings.measures, groups=groups, prefix=prefix)


def _find_file_rules(findings: _Findings, scope: Scope) -> None:
    abi = landlock.abi_version()
    if abi < landlock.LEAST_ABI:
        findings.troubles["files"] = "too old" if abi else "not in this kernel"
        return
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mountinfo = file.read()
    hidden: list[str] = []
    for path in (scope.data_dir, *scope.hidden):
        real = os.path.realpath(path.removesuffix("*")) + ("*" if path.endswith("*") else "")
        hidden += [real, *landlock.aliases(real, mountinfo)]
    rules = FileRules(
        abi=abi,
        hidden=tuple(hidden),
        devices=tuple(landlock.devices_here()),
        readable=_allowed("SNAKELINE_JOB_READABLE", scope.readable, hidden),
        writable=_allowed("SNAKELINE_JOB_WRITABLE", scope.writable, hidden),
    )
    findings.measures = replace(findings.measures, files=rules)


def _allowed(setting: str, paths: Iterable[str], hidden: Iterable[str]) -> tuple[str, ...]:
    """Raises IsolationUnavailable when one of them would show what has to stay hidden."""
    allowed = []
    for path in paths:
        real = os.path.realpath(path)
        shown = next((each for each in hidden if each.startswith(real.rstrip("/") + "/")), None)
        if shown is None:
            allowed.append(real)
        elif path not in DEFAULT_WRITABLE:
            raise IsolationUnavailable(
                f"{setting}: {path} contains {shown.rstrip('*')}, which jobs must not see: "
                "name the folders beside it instead."
            )
    return tuple(allowed)


# ---------------------------------------------------------------- trying


def _try(findings: _Findings) -> None:
    """Hold a process to the measures and kill it; what does not hold is taken out of them."""
    measures = findings.measures
    group = measures.group(_TRIAL_ID, os.getpid())
    try:
        if group is not None:
            group.make(memory_bytes=2**30, processes=64, cores=1)
    except OSError as error:
        findings.troubles["groups"] = error.strerror or str(error)
        group = None
        measures = replace(measures, groups={})
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", _TRIAL, json.dumps(measures.dump()), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath},
            cwd="/",
            start_new_session=True,
        ) as process:
            try:
                _judge(findings, process, group)
            finally:
                process.kill()
    except OSError as error:
        findings.troubles["groups"] = findings.troubles["files"] = error.strerror or str(error)
    finally:
        if group is not None:
            group.remove(within_s=2.0)
    measures = findings.measures
    if "groups" in findings.troubles:
        measures = replace(measures, groups={})
    if "files" in findings.troubles:
        measures = replace(measures, files=None)
    findings.measures = measures


def _judge(findings: _Findings, process: subprocess.Popen[bytes], group: AttemptGroup | None) -> None:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _WITHIN_S)
    told = process.stdout.readline() if ready else b""
    try:
        findings.troubles |= json.loads(told)
    except ValueError:
        findings.troubles["groups"] = findings.troubles["files"] = "the trial ended without an answer"
        return
    if group is None or "groups" in findings.troubles:
        return
    if process.pid not in group.processes():
        findings.troubles["groups"] = "a process that joined a group is not seen in it"
        return
    group.kill()
    try:
        process.wait(_WITHIN_S)
    except subprocess.TimeoutExpired:
        findings.troubles["groups"] = "a process in a group outlived the kill"


def _find_namespace(findings: _Findings) -> None:
    """Only where it is asked for: an engine can't be started warm in one."""
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        findings.troubles["namespace"] = "bubblewrap is not installed"
        return
    try:
        is_second = pid_namespace.tried(bubblewrap, "import os; os._exit(os.getpid() != 2)")
    except (OSError, subprocess.SubprocessError) as error:
        findings.troubles["namespace"] = str(error)
        return
    if is_second:
        findings.measures = replace(findings.measures, namespace=bubblewrap)
    else:
        findings.troubles["namespace"] = "bubblewrap cannot make one here"


# ---------------------------------------------------------------- telling


def _level(findings: _Findings) -> IsolationLevel:
    measures, troubles = findings.measures, findings.troubles
    protections = []
    told = []
    if measures.groups:
        told.append("every process of a job is in one control group and ended with it")
    elif measures.namespace:
        told.append("every process of a job is in one PID namespace and ended with it")
    else:
        told.append("best effort: every descendant is found through its parent and killed")
    if not measures.groups:
        told.append("no control groups: " + (troubles.get("groups") or troubles.get("all", "")))
    if measures.files is not None:
        protections.append("landlock")
        told.append("a job reads nothing of the service's and writes only in its own folders")
        if measures.files.abi < 6:
            told.append("signals to others are not held back (Linux 6.12)")
    else:
        told.append("no Landlock: " + (troubles.get("files") or troubles.get("all", "")))
    if "memory" in measures.groups:
        protections.append("memory_limit")
    elif measures.groups:
        told.append("no memory controller: memory limits are watched, not enforced")
    if measures.namespace:
        protections.append("pid_namespace")
    elif "namespace" in troubles:
        told.append("no PID namespace: " + troubles["namespace"])
    name = "cgroup" if measures.groups else "pid_namespace" if measures.namespace else "subreaper"
    certain = name != "subreaper"
    if name == "cgroup" and (measures.files is None or not call_filter.is_known_here()):
        certain = False
        told.append(MAY_LEAVE)
    return IsolationLevel(name, tuple(protections), "; ".join(told), certain=certain)


def leftovers(measures: Measures) -> list[tuple[str, int]]:
    """The attempts, by job and number, whose groups are there."""
    found: set[tuple[str, int]] = set()
    for folder in set(measures.groups.values()):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                job_id, _, attempt = entry.name.removeprefix(measures.prefix).rpartition(".")
                is_attempt = job_id not in ("", _TRIAL_ID) and attempt.isdecimal()
                if entry.name.startswith(measures.prefix) and is_attempt:
                    found.add((job_id, int(attempt)))
    return sorted(found)
