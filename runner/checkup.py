"""What a service with these settings would find, without starting one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.bootstrap import MEMORY_URL, registry
from runner.data_dir import has_jobs, is_in_use
from runner.engines.choice import engine_of
from runner.engines.offer import Offer
from runner.errors import IsolationUnavailable, StoreUnavailable, TracesUnavailable
from runner.health import Check, check_disk, check_engine
from runner.isolation import probe
from runner.isolation_choice import in_users, scope_of
from runner.network_mounts import ADVICE, network_file_system
from runner.stores.sql.store import SqlStore
from runner.tracing import exporter_of

if TYPE_CHECKING:
    from runner.ports import Engine
    from runner.settings import RunnerSettings

_UNKNOWN_TO_SLURM: Final = (
    "slurm starts no tasks of users that its nodes do not know, and each job has a user of its own here: "
    "start the service as an account of the cluster, not as root"
)


def check(settings: RunnerSettings) -> tuple[Check, ...]:
    """What is there and what is missing, without disturbing a service that runs on the same data.

    Makes and changes nothing: what does not exist yet is said to be made at the first start.
    """
    isolation, protections = _check_isolation(settings)
    engine = engine_of(settings)
    _, engine_check = check_engine(engine)
    options = check_options(settings, engine, protections)
    return (
        *_check_data(settings),
        engine_check,
        options,
        _check_workflows(settings),
        isolation,
        *_check_traces(settings),
    )


def check_options(settings: RunnerSettings, engine: Engine, protections: tuple[str, ...]) -> Check:
    """Whether all that jobs may name is there, and can work with these protections."""
    offer = Offer.of(settings)
    refused = [error.detail for spec in offer.trials() for error in engine.validate(spec)]
    if "slurm" in offer.executors and "uid" in protections:
        refused.append(_UNKNOWN_TO_SLURM)
    return Check("options", ok=not refused, detail="; ".join(refused) or offer.summary())


def _check_isolation(settings: RunnerSettings) -> tuple[Check, tuple[str, ...]]:
    """What a service started from here would have: one that runs may have another user and control group."""
    found = probe.find(scope_of(settings), wanted=settings.isolation, is_service=False)
    try:
        found, _ = in_users(settings, found)
    except IsolationUnavailable as error:
        return Check("isolation", ok=False, detail=str(error)), ()
    trouble = probe.unmet(settings.isolation, found.level)
    if trouble is not None:
        return Check("isolation", ok=False, detail=trouble), ()
    level = found.level
    told = "+".join(dict.fromkeys((level.name, *level.protections)))
    running = is_in_use(settings.data_dir)
    whose = "of a service started from here (the running one tells its own in /readyz): " if running else ""
    return Check("isolation", level.name != "none", f"{whose}{told}: {level.detail}"), level.protections


def _check_traces(settings: RunnerSettings) -> tuple[Check, ...]:
    if settings.traces == "off":
        return ()
    try:
        exporter = exporter_of(settings)
    except TracesUnavailable as error:
        return (Check("traces", ok=False, detail=str(error)),)
    if exporter is None:
        return (Check("traces", ok=True, detail="switched off by OTEL_SDK_DISABLED"),)
    exporter.close()
    return (Check("traces", ok=True, detail="sent by OTLP, as the OTEL_ variables say"),)


def _check_data(settings: RunnerSettings) -> list[Check]:
    directory = settings.data_dir
    if not directory.exists():
        parent = next(p for p in directory.absolute().parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return [Check("data", ok=True, detail=f"{directory} will be made at the first start")]
        return [Check("data", ok=False, detail=f"{directory} cannot be made: {parent} is not writable")]
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return [Check("data", ok=False, detail=f"{directory} is not writable for this user")]
    kind = network_file_system(directory)
    told = f"{directory}" if kind is None else f"{directory} is on a network file system ({kind}). {ADVICE}"
    return [Check("data", ok=True, detail=told), check_disk(settings), _check_store(settings)]


def _check_store(settings: RunnerSettings) -> Check:
    if is_in_use(settings.data_dir):
        return Check("store", ok=True, detail="in use by a running service: ask its /readyz")
    if settings.database_url == MEMORY_URL:
        return Check("store", ok=True, detail="in memory: jobs are forgotten when the service stops")
    try:
        may_be_new = not has_jobs(settings.data_dir)
        return Check("store", ok=True, detail=SqlStore.examine(settings.database_url, may_be_new=may_be_new))
    except (StoreUnavailable, OSError) as error:
        return Check("store", ok=False, detail=str(error))


def _check_workflows(settings: RunnerSettings) -> Check:
    workflows = registry(settings)
    names = workflows.names()
    if not names:
        return Check(
            "workflows", ok=False, detail=f"none in {settings.workflows_dir}: SNAKELINE_WORKFLOWS_DIR"
        )
    left_out = [name for name in workflows.candidates() if workflows.is_left_out(name)]
    told = f"; left out: {', '.join(left_out)} (snakeline workflows check)" if left_out else ""
    return Check("workflows", ok=True, detail=", ".join(names) + told)
