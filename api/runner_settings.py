"""From the service's settings to those of the runner: units, absolute paths, what `auto` means here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import quote

from api.container import in_container
from api.offer_settings import names, software
from runner.access import Quota
from runner.isolation.uids import UidRange
from runner.settings import MockSettings, OnShutdown, RunnerSettings

if TYPE_CHECKING:
    from api.settings import ServiceSettings


def runner_settings(settings: ServiceSettings) -> RunnerSettings:
    """The part the runner needs, with every path absolute."""
    data_dir = settings.data_dir.absolute()
    return RunnerSettings(
        data_dir=data_dir,
        database_url=settings.database_url or f"sqlite:///{quote(str(data_dir / 'snakeline.db'))}",
        engine=settings.engine,
        snakemake=settings.snakemake,
        workflows_dir=settings.workflows_dir.absolute(),
        profiles_dir=settings.profiles_dir,
        executors=names(settings.executors),
        software_deployment=software(settings.software_deployment),
        workflow_uploads=settings.workflow_uploads == "on",
        max_attachment_bytes=math.ceil(settings.max_attachments_mb * 2**20),
        max_cores=settings.max_cores,
        max_pending=settings.max_pending,
        tenant_quota=Quota(
            max_cores=settings.tenant_max_cores,
            max_pending=settings.tenant_max_pending,
            max_bytes=None if settings.tenant_max_gb is None else math.ceil(settings.tenant_max_gb * 2**30),
        ),
        audit_s=settings.audit_days * 86_400,
        stop_grace_s=settings.stop_grace_s,
        log_limit_bytes=math.ceil(settings.log_limit_mb * 2**20),
        default_timeout_s=settings.default_timeout_s,
        max_timeout_s=settings.max_timeout_s,
        plan_timeout_s=settings.plan_timeout_s,
        report_timeout_s=settings.report_timeout_s,
        default_memory_mb=settings.default_memory_mb,
        max_memory_mb=settings.max_memory_mb,
        default_cores=settings.default_cores,
        max_job_cores=settings.max_job_cores,
        max_processes=settings.max_processes,
        isolation=settings.isolation,
        job_readable=folders(settings.job_readable),
        job_writable=folders(settings.job_writable),
        on_shutdown=_what_on_shutdown(settings),
        shutdown_s=settings.shutdown_s,
        retention_s=None if settings.retention_days is None else settings.retention_days * 86_400,
        max_data_bytes=None if settings.max_data_gb is None else math.ceil(settings.max_data_gb * 2**30),
        warm_start=settings.warm_start,
        traces=settings.traces,
        user=settings.user,
        job_uids=UidRange.parse(settings.job_uids),
        mock=MockSettings(
            min_s=settings.mock_min_s,
            max_s=settings.mock_max_s,
            success_rate=settings.mock_success_rate,
            seed=settings.mock_seed,
        ),
    )


def _what_on_shutdown(settings: ServiceSettings) -> OnShutdown:
    if settings.on_shutdown != "auto":
        return settings.on_shutdown
    return "stop" if in_container() else "detach"


def folders(value: str | None) -> tuple[str, ...]:
    """Names that are separated by colons."""
    return tuple(folder for folder in (value or "").split(":") if folder)
