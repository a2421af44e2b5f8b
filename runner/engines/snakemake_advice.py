"""What to do where Snakemake is missing: it depends on how the service was installed."""

from __future__ import annotations

import os
import sys
from typing import Final

_SOURCES: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def what_to_do(tried: str, *, prefix: str = sys.prefix, sources: str = _SOURCES) -> str:
    """For a message about the command `tried`; `prefix` is the service's environment."""
    if os.path.exists(os.path.join(sources, "requirements-snakemake.lock")):
        return "run `make snakemake-env`, or set SNAKELINE_SNAKEMAKE to its command"
    beside = os.path.join(prefix, "snakemake")
    if not os.path.isdir(beside):
        return "install it in a virtual environment of its own, and set SNAKELINE_SNAKEMAKE to its command"
    command = os.path.join(beside, "bin", "snakemake")
    if os.access(command, os.X_OK) and os.path.abspath(tried) != command:
        return f"set SNAKELINE_SNAKEMAKE={command}"
    return "run `make install` again, or set SNAKELINE_SNAKEMAKE to its command"
