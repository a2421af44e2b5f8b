"""Which Snakemake a run was made by: what it told first, and nothing that it could not be called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runner.attempt_files import AttemptFiles
from runner.engine_version import told_version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> AttemptFiles:
    (tmp_path / "jobs" / "one" / "attempts" / "1").mkdir(parents=True)
    return AttemptFiles.of(tmp_path, "one", 1)


def told(files: AttemptFiles, text: str) -> str | None:
    with open(files.events, "w", encoding="utf-8") as file:
        file.write(text)
    return told_version(files)


def event(version: object) -> str:
    return json.dumps({"v": 2, "event": "workflow_started", "snakemake_version": version}) + "\n"


def test_the_version_is_what_the_run_told_first(files: AttemptFiles) -> None:
    assert told(files, event("9.27.1") + event("1.0")) == "9.27.1"
    assert told(files, event("9.28.0+local.1") + "broken") == "9.28.0+local.1"
    planned = '{"v": 2, "event": "tasks_planned", "tasks": [[0, "all", {}]]}\n'
    assert told(files, planned + event("9.27.1")) == "9.27.1"  # our hooks were quicker


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]\n", "null\n", "{}\n", "[" * 20_000 + "\n", event("mock"), event(9), event("9" * 100),
        event("9.1 <script>"), event("9\n"), event(["9.1"]), event("9.1").strip(),
        " " * 300_000 + event("9.1"),
    ],
    ids=range(14),
)  # fmt: skip
def test_anything_else_is_none(files: AttemptFiles, text: str) -> None:
    assert told(files, text) is None


def test_without_a_plain_file_there_is_none(files: AttemptFiles, tmp_path: Path) -> None:
    assert told_version(files) is None
    (tmp_path / "other").write_text(event("9.27.1"))
    (tmp_path / "jobs/one/attempts/1/events.jsonl").symlink_to(tmp_path / "other")
    assert told_version(files) is None
