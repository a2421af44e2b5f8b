"""Modules imported before a run asks for them: given where the run would find the same, and nowhere else."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from runner.engines.early_modules import EarlyModules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "imported_early_by_a_test"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that counts how often it is run, on the search path."""
    package = tmp_path / "library" / NAME
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import sys\nsys.early_runs = getattr(sys, 'early_runs', 0) + 1\n")
    (package / "inner.py").write_text(f"import {NAME}\nWHOSE = 'library'\n")
    monkeypatch.syspath_prepend(tmp_path / "library")
    monkeypatch.setattr(sys, "early_runs", 0, raising=False)
    return package


@pytest.fixture
def early(library: Path) -> Iterator[EarlyModules]:
    finders, loaded = list(sys.meta_path), set(sys.modules)
    modules = EarlyModules()
    modules.load([f"{NAME}.inner", "no_such_module_anywhere"])
    modules.install()
    yield modules
    sys.meta_path[:] = finders
    for name in sys.modules.keys() - loaded:
        del sys.modules[name]


def test_a_run_that_finds_the_same_file_gets_the_module_as_it_is(early: EarlyModules, library: Path) -> None:
    assert not [name for name in sys.modules if name.startswith(NAME)]
    found = importlib.util.find_spec(NAME)
    assert found is not None
    assert found.origin == str(library / "__init__.py")
    inner = importlib.import_module(f"{NAME}.inner")
    module = sys.modules[NAME]
    assert vars(module)["inner"] is inner
    assert sys.early_runs == 1  # type: ignore[attr-defined]
    assert module.__spec__ is not None
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"


def test_a_module_of_the_workflow_with_that_name_is_the_one_that_counts(
    early: EarlyModules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{NAME}.py").write_text("WHOSE = 'workflow'\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(NAME)
    assert vars(module)["WHOSE"] == "workflow"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{NAME}.inner")


def test_one_that_is_no_longer_there_is_not_given(early: EarlyModules, library: Path) -> None:
    (library / "__init__.py").rename(library.parent / "elsewhere.py")
    (library / "inner.py").unlink()
    importlib.invalidate_caches()
    assert getattr(importlib.import_module(NAME), "__file__", None) is None  # an empty folder is a namespace


def test_modules_that_nothing_can_hide_stay(early: EarlyModules) -> None:
    early.keep(["gc", "sys", "never_imported"])
    assert "sys" in sys.modules
    assert importlib.import_module("gc").isenabled()
