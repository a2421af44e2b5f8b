"""Copies of the project in which a guard may be removed without harm to the original."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.mutants.guards import ROOT, Guard, mutated

if TYPE_CHECKING:
    from pathlib import Path


def copy_project(target: Path) -> None:
    """Everything that is tracked or could be, as it is now; the engines' environments by links."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for engine in (ROOT / ".venv-snakemake", ROOT / ".venv-snakemake-oldest"):
        if engine.is_dir():
            (target / engine.name).symlink_to(engine)


def copy_without(guard: Guard, template: Path, target: Path) -> None:
    """A copy of `template`, compiled files included, with the guard removed. Raises StaleGuard."""
    texts = mutated(guard, template)
    shutil.copytree(template, target, symlinks=True)
    for name, text in texts.items():
        path = target / name
        path.write_text(text)
        # Python tells a stale compiled file by size and second, and both may be the same here.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
