"""A Python file in Snakemake's place, for jobs that do what no workflow should."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

WORKFLOW = "program"


def installed(program: ModuleType, directory: str | os.PathLike[str]) -> dict[str, str]:
    """Make the module a command there, with a workflow; the settings of a service that runs it."""
    command = os.path.join(directory, "snakemake")
    assert program.__file__ is not None
    with open(program.__file__, encoding="utf-8") as file:
        source = file.read()
    with open(command, "w", encoding="utf-8") as file:
        # Through env, so that it is no Python script to the service, which would import Snakemake.
        file.write(f"#!/usr/bin/env -S {sys.executable} -I -S\n{source}")
    os.chmod(command, 0o755)
    folder = os.path.join(directory, "workflows", WORKFLOW)
    os.makedirs(folder)
    with open(os.path.join(folder, "Snakefile"), "w", encoding="utf-8"):
        pass
    return {"ENGINE": "snakemake", "SNAKEMAKE": command, "WORKFLOWS_DIR": os.path.dirname(folder)}
