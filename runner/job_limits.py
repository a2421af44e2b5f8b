"""What a job that names no limit gets, and the most it may ask for: timeout, memory and cores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from runner.errors import FieldError
from runner.jobs import CORES_NOT_NAMED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.jobs import JobSpec
    from runner.settings import RunnerSettings

T = TypeVar("T")


def with_defaults(spec: JobSpec, settings: RunnerSettings) -> JobSpec:
    """The spec with the operator's defaults in place of what it does not name.

    Where there is a maximum and no default, the maximum is the default: leaving a limit out is no way
    round it.
    """
    timeout_s = _first(spec.timeout_s, settings.default_timeout_s, settings.max_timeout_s)
    memory_mb = _first(spec.memory_mb, settings.default_memory_mb, settings.max_memory_mb)
    cores = settings.default_cores if spec.cores == CORES_NOT_NAMED else spec.cores
    if (timeout_s, memory_mb, cores) == (spec.timeout_s, spec.memory_mb, spec.cores):
        return spec
    return replace(spec, timeout_s=timeout_s, memory_mb=memory_mb, cores=cores)


def beyond(spec: JobSpec, settings: RunnerSettings) -> Iterator[FieldError]:
    """What the spec asks for and may not have here, each with the setting that says so."""
    if spec.cores > settings.max_cores:
        most = f"{settings.max_cores} here (SNAKELINE_MAX_CORES)"
        yield FieldError("/cores", f"at most {most}: it could never start")
    elif _exceeds(spec.cores, settings.max_job_cores):
        most = f"{settings.max_job_cores} for one job here (SNAKELINE_MAX_JOB_CORES)"
        yield FieldError("/cores", f"at most {most}: ask for less")
    if _exceeds(spec.timeout_s, settings.max_timeout_s):
        most = f"{settings.max_timeout_s:g} s here (SNAKELINE_MAX_TIMEOUT_S)"
        yield FieldError("/timeout_s", f"at most {most}: ask for less, or split the work into several jobs")
    if _exceeds(spec.memory_mb, settings.max_memory_mb):
        most = f"{settings.max_memory_mb} MiB here (SNAKELINE_MAX_MEMORY_MB)"
        yield FieldError("/memory_mb", f"at most {most}: ask for less")


def _exceeds(asked: float | None, most: float | None) -> bool:
    return asked is not None and most is not None and asked > most


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
