"""What the operator lets options name: profiles, executors and ways to get software."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runner.jobs import JobSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.settings import RunnerSettings

_SETTING: Final = {
    "profile": "SNAKELINE_PROFILES_DIR",
    "executor": "SNAKELINE_EXECUTORS",
    "software_deployment": "SNAKELINE_SOFTWARE_DEPLOYMENT",
}
_PROGRAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "conda": ("conda",),
    "apptainer": ("apptainer", "singularity"),
}
# Where the makers of environment modules and of Lmod, and distributions, put what defines `module`.
_MODULE_INITS: Final = (
    "/etc/profile.d/modules.sh",
    "/etc/profile.d/lmod.sh",
    "/etc/profile.d/z00_lmod.sh",
    "/usr/share/modules/init/bash",
    "/usr/share/lmod/lmod/init/bash",
    "/usr/share/Modules/init/bash",
)
_BUILT_IN: Final = frozenset({"local"})
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Offer:
    """Names that options may use. `search_path` is where a job finds its programs.

    `installed_executors` None: whatever is allowed counts as installed.
    """

    profiles_dir: str | None = None
    executors: tuple[str, ...] = ("local",)
    software: tuple[str, ...] = ()
    search_path: str | None = None
    installed_executors: frozenset[str] | None = None

    @classmethod
    def of(cls, settings: RunnerSettings) -> Offer:
        """What the settings allow, whatever is installed."""
        folder = settings.profiles_dir
        return cls(
            profiles_dir=None if folder is None else os.fspath(folder),
            executors=settings.executors,
            software=settings.software_deployment,
        )

    def trials(self) -> Iterator[JobSpec]:
        """Jobs that each name one thing that is allowed, to see whether it is there."""
        for executor in self.executors:
            yield JobSpec(options={"executor": executor})
        for method in self.software:
            yield JobSpec(options={"software_deployment": [method]})

    def summary(self) -> str:
        """What may be named, in one line."""
        lists = (("executors", self.executors), ("software", self.software), ("profiles", self.profiles()))
        return ", ".join(f"{name}: {' '.join(names) or 'none'}" for name, names in lists)

    def refusal(self, option: str, value: Any) -> str | None:
        """Why a well-formed value of this option cannot be used here; None when it can."""
        match option:
            case "profile":
                return self._profile_refusal(value)
            case "executor":
                return self._executor_refusal(value)
            case "software_deployment":
                found = (self._software_refusal(method) for method in value)
                return next((detail for detail in found if detail), None)
            case _:
                return None

    def profile_folder(self, name: str) -> str:
        """Where a registered profile is."""
        return os.path.join(self.profiles_dir or "", name)

    def profiles(self) -> list[str]:
        """The registered names, in order; none where the folder cannot be read."""
        if self.profiles_dir is None:
            return []
        try:
            names = sorted(os.listdir(self.profiles_dir))
        except OSError:
            return []
        return [name for name in names if _is_profile(self.profile_folder(name))]

    def _profile_refusal(self, name: str) -> str | None:
        if self.profiles_dir is not None and _is_profile(self.profile_folder(name)):
            return None
        return f"{name} is not registered: {_among(self.profiles(), 'profile')}"

    def _executor_refusal(self, name: str) -> str | None:
        if name not in self.executors:
            return f"{name} is not allowed: {_among(self.executors, 'executor')}"
        installed = self.installed_executors
        if installed is None or name in _BUILT_IN or name in installed:
            return None
        plugin = f"snakemake-executor-plugin-{name}"
        return f"{name} is not installed: the operator can install {plugin} beside Snakemake"

    def _software_refusal(self, method: str) -> str | None:
        if method not in self.software:
            return f"{method} is not allowed: {_among(self.software, 'software_deployment')}"
        if self.search_path is None:
            return None
        if method == "env-modules":
            return (
                None if module_init() else "env-modules are not installed: no " + " or ".join(_MODULE_INITS)
            )
        programs = _PROGRAMS[method]
        if any(shutil.which(program, path=self.search_path) for program in programs):
            return None
        return f"{method} is not installed: no {' or '.join(programs)} where jobs find their programs"


def module_init() -> str | None:
    """The file that makes the command `module` known to bash, where this machine has one."""
    return next((path for path in _MODULE_INITS if os.path.isfile(path)), None)


def _is_profile(folder: str) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(name.startswith("config.") and name.endswith((".yaml", ".yml")) for name in names)


def _among(names: tuple[str, ...] | list[str], option: str) -> str:
    told = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"there are {told}" if names else f"there are none ({_SETTING[option]})"
