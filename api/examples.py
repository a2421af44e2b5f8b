"""What the OpenAPI document shows of jobs and workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

JOB_ID = "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
VERSION = "sha256:3b1f0a4e5d6c7b8a99887766554433221100ffeeddccbbaa0123456789abcdef"
JOB: dict[str, JsonValue] = {
    "id": JOB_ID,
    "status": "completed",
    "reason": "exited_zero",
    "name": "batch 17",
    "workflow": "demo",
    "workflow_version": VERSION,
    "workflow_commit": None,
    "parameters": {},
    "targets": [],
    "options": {},
    "cores": 1,
    "priority": 0,
    "timeout_s": None,
    "memory_mb": 2048,
    "max_retries": 0,
    "retry_lost": False,
    "labels": {"project": "atlas"},
    "attachments": [],
    "attempt": 1,
    "queue_position": None,
    "created_at": "2026-01-31T12:00:00.120000Z",
    "updated_at": "2026-01-31T12:00:12.400000Z",
    "started_at": "2026-01-31T12:00:00.150000Z",
    "completed_at": "2026-01-31T12:00:12.400000Z",
    "cancel_requested_at": None,
    "exit_code": 0,
    "exit_signal": None,
    "error_message": None,
    "progress": {"total": 5, "done": 5, "running": 0, "failed": 0, "up_to_date": 0},
    "usage": {
        "cpu_s": 0.4,
        "max_rss_bytes": 25165824,
        "read_bytes": 0,
        "written_bytes": 4096,
    },
    "engine": "mock",
    "owner": "lims",
    "tenant": "default",
    "isolation": "cgroup",
    "links": {
        "self": f"/jobs/{JOB_ID}",
        "logs": f"/jobs/{JOB_ID}/logs",
        "tasks": f"/jobs/{JOB_ID}/tasks",
        "graph": f"/jobs/{JOB_ID}/graph",
        "usage": f"/jobs/{JOB_ID}/usage",
        "events": f"/jobs/{JOB_ID}/events",
        "outputs": f"/jobs/{JOB_ID}/outputs",
        "report": f"/jobs/{JOB_ID}/report",
        "ro_crate": f"/jobs/{JOB_ID}/ro-crate",
        "cancel": f"/jobs/{JOB_ID}/cancel",
        "retry": f"/jobs/{JOB_ID}/retry",
        "workflow": "/workflows/demo",
    },
}
JOB_CHANGE: dict[str, JsonValue] = {
    "job_id": JOB_ID,
    "kind": "ended",
    "status": "completed",
    "attempt": 1,
    "at": JOB["completed_at"],
    "job": {
        **{
            name: JOB[name]
            for name in (
                *("id", "status", "reason", "name", "workflow", "attempt", "created_at", "updated_at"),
                *("started_at", "completed_at", "exit_code", "exit_signal", "error_message", "progress"),
                *("owner", "tenant"),
            )
        },
        "links": {"self": f"/jobs/{JOB_ID}"},
    },
}
TASK: dict[str, JsonValue] = {
    "number": 7,
    "rule": "align",
    "wildcards": {"sample": "A"},
    "status": "failed",
    "attempt": 1,
    "started_at": "2026-01-31T12:00:03.100000Z",
    "ended_at": "2026-01-31T12:00:09.350000Z",
    "duration_s": 6.25,
    "reason": "Missing output files: aligned/A.bam",
    "message": None,
    "threads": 4,
    "priority": 0,
    "resources": {"mem_mb": 2000},
    "input": ["reads/A.fastq"],
    "output": ["aligned/A.bam"],
    "log": ["logs/align/A.log"],
    "benchmark": [],
    "shell_command": "bwa mem reads/A.fastq > aligned/A.bam 2> logs/align/A.log",
    "script": None,
    "is_checkpoint": False,
    "is_local": False,
    "group": None,
    "external_id": None,
    "error": {
        "message": "Its command exited with 1.",
        "exit_code": 1,
        "log_lines": ["[bwa] reads/A.fastq: unexpected end of file"],
        "is_root": True,
    },
    "links": {
        "self": f"/jobs/{JOB_ID}/tasks/7?attempt=1",
        "logs": f"/jobs/{JOB_ID}/tasks/7/logs?attempt=1",
    },
}
TASK_PAGE: dict[str, JsonValue] = {
    "items": [TASK],
    "total": 1,
    "counts": {"pending": 0, "running": 0, "completed": 7, "failed": 1, "cancelled": 2},
    "next_cursor": None,
    "attempt": 1,
    "left_out": 0,
}
USAGE_HISTORY: dict[str, JsonValue] = {
    "job_id": JOB_ID,
    "attempt": 1,
    "started_at": JOB["started_at"],
    "ended_at": None,
    "limits": {"cores": 2, "memory_bytes": 2147483648},
    "usage": {"cpu_s": 5.9, "max_rss_bytes": 412090368, "read_bytes": 1048576, "written_bytes": 4096},
    "points": [
        {
            "elapsed_s": elapsed_s,
            "cores": cores,
            "rss_bytes": rss_bytes,
            "processes": processes,
            "read_bytes": read_bytes,
            "written_bytes": written_bytes,
        }
        for elapsed_s, cores, rss_bytes, processes, read_bytes, written_bytes in (
            (2.012, 1.004, 96468992, 3, 1048576, 0),
            (4.02, 1.932, 412090368, 5, 0, 4096),
        )
    ],
}
RULE_GRAPH: dict[str, JsonValue] = {
    "nodes": [
        {
            "rule": rule,
            "checkpoint": False,
            "counts": {
                "pending": 10 - done,
                "running": 0,
                "completed": done,
                "failed": 0,
                "cancelled": 0,
                "up_to_date": 0,
                "total": 10,
            },
            "status": "completed" if done == 10 else "pending",
        }
        for rule, done in (("align", 10), ("sort", 4))
    ],
    "edges": [["align", "sort"]],
    "attempt": 1,
}
RULE_GRAPH_SVG: str = '<svg xmlns="http://www.w3.org/2000/svg" width="180" height="166" role="img">…</svg>'
OUTPUT_PAGE: dict[str, JsonValue] = {
    "items": [
        {
            "path": "results/plot.png",
            "size": 48213,
            "modified_at": "2026-01-31T12:00:07.250000Z",
            "task": {"number": 3, "rule": "plot", "attempt": 1},
            "links": {"self": f"/jobs/{JOB_ID}/outputs/results/plot.png"},
        }
    ],
    "total": 17,
    "total_is_exact": True,
    "left_out": 1,
    "next_cursor": "cmVzdWx0cy9yZXBvcnQucGRmmDec_yoAAAA",
}
CRATE: dict[str, JsonValue] = {
    "@context": "https://w3id.org/ro/crate/1.1/context",
    "@graph": [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": [
                {"@id": "https://w3id.org/ro/crate/1.1"},
                {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
            ],
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": "Run of batch 17",
            "datePublished": "2026-01-31T12:00:12.400000+00:00",
            "license": {"@id": "https://spdx.org/licenses/CC-BY-4.0"},
            "conformsTo": [{"@id": "https://w3id.org/ro/wfrun/provenance/0.5"}],
            "mainEntity": {"@id": "work/Snakefile"},
        },
    ],
}
OUTPUT_CHECKSUM: dict[str, JsonValue] = {
    "path": "results/plot.png",
    "size": 48213,
    "modified_at": "2026-01-31T12:00:07.250000Z",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "links": {"self": f"/jobs/{JOB_ID}/outputs/results/plot.png"},
}
TEXT_PREVIEW: dict[str, JsonValue] = {
    "kind": "text",
    "size": 26,
    "encoding": "utf-8",
    "first": ["12 reads kept", "3 left out"],
    "last": [],
    "is_whole": True,
}
TABLE_PREVIEW: dict[str, JsonValue] = {
    "kind": "table",
    "size": 23,
    "encoding": "utf-8",
    "delimiter": "\t",
    "header": ["sample", "count"],
    "rows": [["A", "12"], ["B", "7"]],
    "columns": 2,
    "is_whole": True,
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
WORKFLOW_SUMMARY: dict[str, JsonValue] = {
    "name": "demo",
    "description": "Five small rules.",
    "source": "folder",
    "commit": None,
    "parameters_schema": {"type": "object", "properties": {"samples": {"type": "integer"}}},
    "attachments": {"max_mb": 100, "max_files": 20, "names": "[a-z]+[.]csv", "unpack": False},
    "links": {"self": "/workflows/demo"},
}
WORKFLOW: dict[str, JsonValue] = {
    **WORKFLOW_SUMMARY,
    "version": VERSION,
    "snakefile": "Snakefile",
    "readme": "# Demo\n\nFive small rules.\n",
}
PLAN: dict[str, JsonValue] = {
    "workflow": "wordcount",
    "version": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "ok": True,
    "tasks": {
        "items": [
            {
                "number": 1,
                "rule": "count",
                "wildcards": {"sample": "A"},
                "reason": "Missing output files: counts/A.txt",
                "message": None,
                "threads": 1,
                "priority": 0,
                "resources": {},
                "input": ["texts/A.txt"],
                "output": ["counts/A.txt"],
                "log": ["logs/A.log"],
                "benchmark": [],
                "shell_command": "wc -w < texts/A.txt > counts/A.txt 2> logs/A.log",
                "script": None,
                "is_checkpoint": False,
                "is_local": False,
                "group": None,
            }
        ],
        "total": 1,
        "left_out": 0,
    },
    "rules": {"count": 1},
    "up_to_date": 0,
    "graph": {
        "nodes": [
            {
                "rule": "count",
                "checkpoint": False,
                "counts": {
                    "pending": 1,
                    "running": 0,
                    "completed": 0,
                    "failed": 0,
                    "cancelled": 0,
                    "up_to_date": 0,
                    "total": 1,
                },
                "status": "pending",
            }
        ],
        "edges": [],
        "attempt": 1,
    },
    "missing_input": [],
    "errors": [],
}
REPORT: dict[str, JsonValue] = {
    "job_id": JOB_ID,
    "size": 2989750,
    "made_at": "2026-01-31T12:01:07.250000Z",
    "links": {"self": f"/jobs/{JOB_ID}/report", "job": f"/jobs/{JOB_ID}"},
}
