"""How a run ends other than by reaching its end."""

from __future__ import annotations


class WorkflowError(Exception):
    """The workflow cannot be run at all. `kind` is the name Snakemake gives such an error."""

    def __init__(self, message: str, kind: str = "WorkflowError") -> None:
        super().__init__(message)
        self.kind = kind


class Terminated(Exception):
    """SIGTERM or SIGINT asked the run to end."""
