"""Plans as the JSON of api/plan_schemas.py."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from api.task_documents import graph_document, task_document

if TYPE_CHECKING:
    from runner.plans import Plan
    from runner.tasks import Task

_OF_RUNS = frozenset(
    {"status", "attempt", "started_at", "ended_at", "duration_s", "external_id", "error", "links"}
)


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "workflow": plan.workflow,
        "version": plan.version,
        "ok": plan.ok,
        "tasks": {
            "items": [_planned(task) for task in plan.tasks.items],
            "total": plan.tasks.total,
            "left_out": plan.tasks.left_out,
        },
        "rules": plan.rules,
        "up_to_date": plan.up_to_date,
        "graph": graph_document(plan.graph),
        "missing_input": [asdict(each) for each in plan.missing_input],
        "errors": plan.errors,
    }


def _planned(task: Task) -> dict[str, Any]:
    """Without what only a task that has run can tell."""
    return {name: value for name, value in task_document(task, {}).items() if name not in _OF_RUNS}
