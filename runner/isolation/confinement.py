"""What holds for one attempt, and how its process takes it on before anything of the job runs there.

`Measures` are the same for every attempt of a service: found once, at start, and given to the launcher.
Standard library only.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from typing import Any, Final

from runner.isolation import call_filter, landlock, restraints, uids
from runner.isolation.cgroups import AttemptGroup
from runner.isolation.memory_watch import MemoryWatch

OOM_SCORE_ADJUSTMENT: Final = 500
"""Measured: without it a shared memory limit took the service; with it, the job."""

MOST_OPEN_FILES: Final = 65_536


@dataclass(frozen=True, slots=True)
class FileRules:
    """What Landlock of version `abi` is to keep: see runner/isolation/landlock.py for `hidden`."""

    abi: int
    hidden: tuple[str, ...]
    devices: tuple[str, ...]
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measures:
    """What this machine offers and the settings want. The default is nothing: isolation is off."""

    groups: dict[str, str] = field(default_factory=dict)
    """Role to the folder in which attempts' groups are made; empty without control groups."""
    prefix: str = ""
    """How the names of this service's groups begin; no other service's do."""
    files: FileRules | None = None
    namespace: str = ""
    """The program that runs engines in a PID namespace, bubblewrap; empty without."""
    limits: bool = False
    """Limits of resources, fewer privileges, and the first to be killed when memory is used up."""

    def dump(self) -> dict[str, Any]:
        """As plain JSON."""
        rules = self.files
        return {
            "groups": self.groups,
            "prefix": self.prefix,
            "namespace": self.namespace,
            "limits": self.limits,
            "files": rules and {name: getattr(rules, name) for name in FileRules.__slots__},
        }

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Measures:
        files = None
        if (rules := plain["files"]) is not None:
            paths = {name: tuple(rules[name]) for name in FileRules.__slots__ if name != "abi"}
            files = FileRules(abi=rules["abi"], **paths)
        namespace = str(plain["namespace"])
        return cls(dict(plain["groups"]), plain["prefix"], files, namespace, bool(plain["limits"]))

    def are_there(self) -> bool:
        """Whether the folders of control groups still are what they were."""
        return all(os.path.exists(f"{folder}/cgroup.procs") for folder in set(self.groups.values()))

    def look(self) -> None:
        """List what jobs may see, if it has changed: what is forked from here then need not."""
        if self.files is not None:
            _view(self.files.hidden).look()

    def group(self, job_id: str, attempt: int) -> AttemptGroup | None:
        """The attempt's control group, which may be there or not; None where there are none."""
        return AttemptGroup(self.groups, f"{self.prefix}{job_id}.{attempt}") if self.groups else None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one attempt may take; None is no limit. As written to `spec.json`."""

    memory_bytes: int | None = None
    processes: int | None = None
    cores: int | None = None

    def dump(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Limits.__slots__}

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Limits:
        """Raises ValueError when it is not what `dump` wrote."""
        values = {name: plain.get(name) for name in cls.__slots__}
        if any(value is not None and (type(value) is not int or value < 1) for value in values.values()):
            raise ValueError("a limit must be a whole number above 0")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Places:
    """What of the service's data the job needs: `own` it may write as well, folders and files."""

    own: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


class Confinement:
    """One attempt's share of the measures. Made by its shim; entered by the engine's process."""

    def __init__(
        self, measures: Measures, limits: Limits, places: Places, group: AttemptGroup | None
    ) -> None:
        self._measures = measures
        self._limits = limits
        self._places = places
        self.group = group
        self._ruleset: landlock.Ruleset | None = None
        self._trouble: OSError | None = None

    @classmethod
    def none(cls) -> Confinement:
        return cls(Measures(), Limits(), Places(), None)

    @classmethod
    def of_files(cls, plain: dict[str, Any]) -> Confinement:
        """What `files_setup` told of: the rules about files, ready to be entered."""
        places = Places(tuple(plain["own"]), tuple(plain["reads"]))
        made = cls(Measures.load(plain["measures"]), Limits(), places, None)
        made.prepare()
        return made

    def files_setup(self) -> dict[str, Any]:
        """For whoever keeps the rules about files in a namespace; `enter` leaves them to it then."""
        alone = Measures(files=self._measures.files)
        return {
            "packages": {"runner": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))},
            "measures": alone.dump(),
            "own": self._places.own,
            "reads": self._places.reads,
        }

    @property
    def namespace(self) -> str:
        return self._measures.namespace

    def memory_watch(self) -> MemoryWatch:
        """In the shim: keeps the memory limit where no control group does."""
        is_kept = self.group is not None and self.group.has_memory
        return MemoryWatch(None if is_kept else self._limits.memory_bytes, counts_kills=not is_kept)

    def make_group(self) -> None:
        """Raises OSError."""
        if self.group is not None:
            self.group.make(
                memory_bytes=self._limits.memory_bytes,
                processes=self._limits.processes,
                cores=self._limits.cores,
            )

    def prepare(self) -> None:
        """In the engine's process: join the group, and gather the rules that are known by now.

        Apart from `enter` because it takes a while, in which the shim has something else to do. `enter`
        raises what stands in the way.
        """
        try:
            if self.group is not None:
                self.group.join()
            if self._measures.files is not None and not self.namespace:
                self._ruleset = _ruleset(self._measures.files)
        except OSError as error:
            self._trouble = error

    def enter(self, *, uid: int | None = None, gid: int | None = None) -> None:
        """In the engine's process, after `prepare`: from here on the job may run in it. Raises OSError."""
        if self._trouble is not None:
            raise self._trouble
        restraints.show_memory()  # or some of what follows could not be written by a user that is not root
        if self._measures.limits:
            restraints.limit_resources(
                open_files=MOST_OPEN_FILES, processes=self._limits.processes if uid is not None else None
            )
            restraints.be_killed_first(OOM_SCORE_ADJUSTMENT)
        if uid is not None and gid is not None:
            uids.become(uid, gid)
            restraints.show_memory()
        if self._measures.limits:
            restraints.leave_keyring()
            if os.geteuid() == 0 and not self.namespace:
                restraints.drop_capabilities()
            restraints.gain_nothing()
        self._stay_inside(has_user=uid is not None)

    def _stay_inside(self, *, has_user: bool) -> None:
        if self._ruleset is not None:
            for path in self._places.own:
                self._ruleset.allow_all(path)
            for path in self._places.reads:
                self._ruleset.allow_reading(path)
            if has_user:  # anybody else's terminals are closed to it then
                self._ruleset.allow_all(landlock.TERMINALS)
            self._ruleset.enforce()
        if self._measures.limits:
            try:
                call_filter.stay_inside()
            except OSError:  # a kernel without it: only Landlock promises what that would break
                if self._ruleset is not None and not has_user:
                    raise


@functools.cache
def _view(hidden: tuple[str, ...]) -> landlock.SystemView:
    view = landlock.SystemView(hidden)
    view.look()
    return view


def _ruleset(rules: FileRules) -> landlock.Ruleset:
    view = _view(rules.hidden)
    ruleset = landlock.Ruleset(rules.abi)
    ruleset.allow_system(view, rules.devices)
    for path in rules.readable:
        ruleset.allow_reading(path)
    for path in rules.writable:
        ruleset.allow_all(path)
    return ruleset
