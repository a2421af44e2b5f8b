"""What the OpenAPI document shows of jobs and workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

JOB_ID = "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
JOB: dict[str, JsonValue] = {
    "id": JOB_ID,
    "status": "completed",
    "reason": "exited_zero",
    "name": "batch 17",
    "workflow": "demo",
    "parameters": {},
    "targets": [],
    "options": {},
    "cores": 1,
    "priority": 0,
    "timeout_s": None,
    "max_retries": 0,
    "retry_lost": False,
    "labels": {"project": "atlas"},
    "attempt": 1,
    "created_at": "2026-01-31T12:00:00.120000Z",
    "updated_at": "2026-01-31T12:00:12.400000Z",
    "started_at": "2026-01-31T12:00:00.150000Z",
    "completed_at": "2026-01-31T12:00:12.400000Z",
    "cancel_requested_at": None,
    "exit_code": 0,
    "exit_signal": None,
    "error_message": None,
    "progress": {"total": 5, "done": 5, "running": 0, "failed": 0},
    "usage": {
        "cpu_s": 0.4,
        "max_rss_bytes": 25165824,
        "read_bytes": 0,
        "written_bytes": 4096,
    },
    "engine": "mock",
    "links": {
        "self": f"/jobs/{JOB_ID}",
        "logs": f"/jobs/{JOB_ID}/logs",
        "cancel": f"/jobs/{JOB_ID}/cancel",
        "retry": f"/jobs/{JOB_ID}/retry",
        "workflow": "/workflows/demo",
    },
}
PENDING_JOB: dict[str, JsonValue] = {
    **JOB,
    "status": "pending",
    "reason": None,
    "updated_at": JOB["created_at"],
    "started_at": None,
    "completed_at": None,
    "exit_code": None,
    "progress": None,
    "usage": None,
}
WORKFLOW: dict[str, JsonValue] = {
    "name": "demo",
    "description": "Five small rules.",
    "parameters_schema": {"type": "object", "properties": {"samples": {"type": "integer"}}},
    "links": {"self": "/workflows/demo"},
}
