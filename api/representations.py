"""The runner's values as the JSON of api/schemas.py, written once and straight to bytes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.jobs import Job
    from runner.ports import Workflow
    from runner.service import Readiness

JSON = "application/json"


def job_document(job: Job) -> dict[str, Any]:
    spec = job.spec
    here = f"/jobs/{job.id}"
    progress, usage = job.progress, job.usage
    return {
        "id": job.id,
        "status": job.status.value,
        "reason": job.reason.value if job.reason else None,
        "name": spec.name,
        "workflow": spec.workflow,
        "parameters": spec.parameters,
        "targets": spec.targets,
        "options": spec.options,
        "cores": spec.cores,
        "priority": spec.priority,
        "timeout_s": spec.timeout_s,
        "max_retries": spec.max_retries,
        "retry_lost": spec.retry_lost,
        "labels": spec.labels,
        "attempt": job.attempt,
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
        "links": {
            "self": here,
            "logs": f"{here}/logs",
            "cancel": f"{here}/cancel",
            "retry": f"{here}/retry",
            "workflow": f"/workflows/{spec.workflow}",
        },
    }


def workflow_document(workflow: Workflow) -> dict[str, Any]:
    return {
        "name": workflow.name,
        "description": workflow.description,
        "parameters_schema": workflow.parameters_schema,
        "links": {"self": f"/workflows/{workflow.name}"},
    }


def readiness_document(readiness: Readiness) -> dict[str, Any]:
    """All but `status`, which is "ready" or that of the problem."""
    return {
        "checks": [
            {"name": check.name, "ok": check.ok, "detail": check.detail} for check in readiness.checks
        ],
        "engine": asdict(readiness.engine) if readiness.engine else None,
        "isolation": readiness.isolation,
    }


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(document, fallback=dict), status, headers, JSON)


def job_response(job: Job, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(job_document(job), status, {"ETag": job_etag(job), **(headers or {})})


def job_etag(job: Job) -> str:
    """Weak, because `version` counts changes of the job and not of the bytes that tell of it."""
    return f'W/"{job.version}"'
