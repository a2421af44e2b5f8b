"""Tasks and rule graphs as the JSON of api/task_schemas.py."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.tasks import RuleCounts, RuleGraph, RuleNode, Task, TaskPage


def task_document(task: Task, links: Mapping[str, str]) -> dict[str, Any]:
    started, ended = task.started_at, task.ended_at
    return {
        "number": task.number,
        "rule": task.rule,
        "wildcards": task.wildcards,
        "status": task.status.value,
        "attempt": task.attempt,
        "started_at": started,
        "ended_at": ended,
        "duration_s": (ended - started).total_seconds() if started and ended else None,
        "reason": task.reason,
        "message": task.message,
        "threads": task.threads,
        "priority": task.priority,
        "resources": task.resources,
        "input": task.input,
        "output": task.output,
        "log": task.log,
        "benchmark": task.benchmark,
        "shell_command": task.shell_command,
        "script": task.script,
        "is_checkpoint": task.is_checkpoint,
        "is_local": task.is_local,
        "group": task.group,
        "external_id": task.external_id,
        "error": asdict(task.error) if task.error else None,
        "links": links,
    }


def task_page_document(page: TaskPage, job_id: str, next_cursor: str | None) -> dict[str, Any]:
    return {
        "items": [task_document(task, task_links(job_id, page.attempt, task.number)) for task in page.items],
        "total": page.total,
        "counts": {status.value: number for status, number in page.counts.items()},
        "next_cursor": next_cursor,
        "attempt": page.attempt,
        "left_out": page.left_out,
    }


def task_links(job_id: str, attempt: int | None, number: int) -> dict[str, str]:
    """With the attempt, where it is named: in another the number may mean another task."""
    here = f"/jobs/{job_id}/tasks/{number}"
    of = "" if attempt is None else f"?attempt={attempt}"
    return {"self": f"{here}{of}", "logs": f"{here}/logs{of}"}


def graph_document(graph: RuleGraph) -> dict[str, Any]:
    return {
        "nodes": [_node(node) for node in graph.nodes],
        "edges": graph.edges,
        "attempt": graph.attempt,
    }


def _node(node: RuleNode) -> dict[str, Any]:
    return {
        "rule": node.rule,
        "checkpoint": node.is_checkpoint,
        "counts": {**asdict(node.counts), "total": node.counts.total},
        "status": rule_status(node.counts),
    }


def rule_status(counts: RuleCounts) -> str:
    """The rule's status in a word: what asks most for attention among its tasks.

    `up_to_date` when none of them needed to run; `pending` while none is known.
    """
    for status in ("failed", "running", "cancelled", "pending", "completed", "up_to_date"):
        if getattr(counts, status):
            return status
    return "pending"
