"""The runner's values as the JSON of api/schemas.py, written once and straight to bytes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic_core import to_json
from starlette.responses import Response

from runner.jobs import UPLOADED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.file_listing import ListedFile
    from runner.health import Readiness
    from runner.jobs import Job
    from runner.ports import Workflow

JSON = "application/json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def job_document(job: Job, queue_position: int | None = None) -> dict[str, Any]:
    spec = job.spec
    here = f"/jobs/{job.id}"
    progress, usage = job.progress, job.usage
    return {
        "id": job.id,
        "status": job.status.value,
        "reason": job.reason.value if job.reason else None,
        "name": spec.name,
        "workflow": spec.workflow,
        "workflow_version": job.workflow_version,
        "workflow_commit": job.workflow_commit,
        "parameters": spec.parameters,
        "targets": spec.targets,
        "options": spec.options,
        "cores": spec.cores,
        "priority": spec.priority,
        "timeout_s": spec.timeout_s,
        "memory_mb": spec.memory_mb,
        "max_retries": spec.max_retries,
        "retry_lost": spec.retry_lost,
        "labels": spec.labels,
        "attachments": [
            {"name": each.name, "size": each.size_bytes, "sha256": each.sha256} for each in spec.attachments
        ],
        "attempt": job.attempt,
        "queue_position": queue_position,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "cancel_requested_at": job.cancel_requested_at,
        "exit_code": job.exit_code,
        "exit_signal": job.exit_signal,
        "error_message": job.error_message,
        "progress": asdict(progress) if progress else None,
        "usage": asdict(usage) if usage else None,
        "engine": job.engine,
        "owner": job.owner,
        "tenant": job.tenant,
        "isolation": job.isolation,
        "links": {
            "self": here,
            "logs": f"{here}/logs",
            "tasks": f"{here}/tasks",
            "graph": f"{here}/graph",
            "usage": f"{here}/usage",
            "events": f"{here}/events",
            "outputs": f"{here}/outputs",
            "report": f"{here}/report",
            "ro_crate": f"{here}/ro-crate",
            "cancel": f"{here}/cancel",
            "retry": f"{here}/retry",
            "workflow": None if spec.workflow == UPLOADED else f"/workflows/{spec.workflow}",
        },
    }


def output_document(job_id: str, file: ListedFile) -> dict[str, Any]:
    """All but its `task`."""
    return {
        "path": file.path.decode("utf-8", "replace"),
        "size": file.size_bytes,
        "modified_at": _moment(file.modified_ns),
        "links": {"self": f"/jobs/{job_id}/outputs/{quote(file.path)}"},
    }


def _moment(ns: int) -> datetime:
    """A file may have any time, also one that no date can tell: it is then the nearest that can be told."""
    try:
        return _EPOCH + timedelta(microseconds=ns // 1000)
    except OverflowError:
        return _LAST if ns > 0 else _FIRST


def workflow_document(workflow: Workflow) -> dict[str, Any]:
    """As in lists: without what takes reading all of its folder, or is long."""
    rules = workflow.attachments
    return {
        "name": workflow.name,
        "description": workflow.description,
        "source": "folder" if workflow.commit is None else "git",
        "commit": workflow.commit,
        "parameters_schema": workflow.parameters_schema,
        "attachments": rules
        and {
            "max_mb": round(rules.max_bytes / 2**20, 3),
            "max_files": rules.max_files,
            "names": rules.names,
            "unpack": rules.unpack,
        },
        "links": {"self": f"/workflows/{workflow.name}"},
    }


def whole_workflow_document(workflow: Workflow, version: str | None) -> dict[str, Any]:
    return {
        **workflow_document(workflow),
        "version": version,
        "snakefile": workflow.snakefile,
        "readme": workflow.readme,
    }


def readiness_document(readiness: Readiness) -> dict[str, Any]:
    """All but `status`, which is "ready" or that of the problem."""
    return {
        "checks": [
            {"name": check.name, "ok": check.ok, "detail": check.detail} for check in readiness.checks
        ],
        "engine": asdict(readiness.engine) if readiness.engine else None,
        "isolation": readiness.isolation.name,
        "isolation_certain": readiness.isolation.certain,
        "isolation_protections": list(readiness.isolation.protections),
        "isolation_detail": readiness.isolation.detail,
    }


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(document, fallback=dict), status, headers, JSON)


def job_response(
    job: Job,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    queue_position: int | None = None,
) -> Response:
    document = job_document(job, queue_position)
    return json_response(document, status, {"ETag": job_etag(job), **(headers or {})})


def job_etag(job: Job) -> str:
    """Weak, because `version` counts changes of the job and not of the bytes that tell of it."""
    return f'W/"{job.version}"'
