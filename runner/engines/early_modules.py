"""Modules that a warm process has imported before any run asked for them. Standard library only."""

from __future__ import annotations

import contextlib
import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType


class EarlyModules:
    """Gives a run a module from here only where it would find the same one itself.

    A workflow may have a module named like one of a library that Snakemake imports late, or not at all. So
    whatever is imported early leaves `sys.modules` again, and comes back when it is asked for and the search
    path leads to its file. A finder of `sys.meta_path`.
    """

    def __init__(self) -> None:
        self._families: dict[str, dict[str, ModuleType]] = {}

    def load(self, names: Iterable[str]) -> None:
        """Import these, and keep what they bring that was not there. One that is missing is passed over."""
        before = _top_level()
        for name in names:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self.keep(_top_level() - before)

    def keep(self, names: Iterable[str]) -> None:
        """Take these modules and all below them out of `sys.modules`. Built-in ones stay: none hides them."""
        for name in names:
            if _origin(getattr(sys.modules.get(name), "__spec__", None)) is None:
                continue
            below = [inner for inner in sys.modules if inner == name or inner.startswith(name + ".")]
            self._families[name] = {inner: sys.modules.pop(inner) for inner in below}

    def install(self) -> None:
        """Be asked before the search path is."""
        place = next((n for n, finder in enumerate(sys.meta_path) if finder is PathFinder), 0)
        sys.meta_path.insert(place, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self._families:
            return None
        mine = self._families[fullname][fullname].__spec__
        found = PathFinder.find_spec(fullname, None, target)
        if mine is None or found is None or found.origin != mine.origin:
            return None
        found.loader = _Loader(self, mine.loader)  # type: ignore[assignment]
        return found

    def give(self, name: str) -> ModuleType:
        """The module; from here on it and all below it are the run's."""
        family = self._families[name]
        module = family.pop(name)
        del self._families[name]
        for inner, early in family.items():
            sys.modules.setdefault(inner, early)
        return module


class _Loader:
    """In everything but giving the module, what loaded it."""

    def __init__(self, modules: EarlyModules, real: Any) -> None:
        self._modules = modules
        self._real = real
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = self._modules.give(spec.name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already."""
        module.__spec__ = self._spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _top_level() -> set[str]:
    return {name for name in sys.modules if "." not in name}


def _origin(spec: ModuleSpec | None) -> str | None:
    """The file of a module that the search path leads to."""
    return spec.origin if spec is not None and spec.has_location else None
