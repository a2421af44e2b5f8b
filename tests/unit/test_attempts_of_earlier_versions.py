"""What shims of earlier versions have written is read as it was meant; see docs/upgrade.md.

`tests/stores/attempts` holds attempts as the release with stores of that revision left them, but for paths.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from runner.attempt_files import AttemptFiles, ExitRecord, ShimSpec
from runner.engines.run_events import EventsReader
from runner.engines.told_tasks import ToldTasks
from runner.isolation.confinement import Limits
from runner.tasks import TaskQuery
from tests.support.store_dumps import DUMPS

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = DUMPS / "attempts"
NAMES = ("mock-0002", "snakemake-0002")


@pytest.mark.parametrize("name", NAMES)
def test_a_record_of_an_earlier_version_says_how_the_attempt_ended(name: str) -> None:
    content = (ATTEMPTS / name / "exit.json").read_bytes()
    record = ExitRecord.load(content)
    assert record.exit_code == {"mock-0002": 7, "snakemake-0002": 1}[name]
    assert (record.survivors, record.oom_kills, record.memory_peak_bytes) == (0, 0, 0)
    assert record.cpu_s == json.loads(content)["cpu_s"]


@pytest.mark.parametrize("name", NAMES)
def test_a_record_of_a_later_version_is_read_as_far_as_it_is_known(name: str) -> None:
    """An older service may have been put back while newer shims still run."""
    content = json.loads((ATTEMPTS / name / "exit.json").read_bytes())
    later = json.dumps({**content, "gpu_s": 1.5}).encode()
    assert ExitRecord.load(later) == ExitRecord.load(json.dumps(content).encode())


@pytest.mark.parametrize("name", NAMES)
def test_what_an_earlier_version_asked_of_a_shim_can_be_run(name: str) -> None:
    spec = ShimSpec.load((ATTEMPTS / name / "spec.json").read_bytes())
    assert (spec.attempt, spec.prepare) == (1, [])
    assert Limits.load(spec.confinement) == Limits()
    assert spec.argv[-1] == "--"


@pytest.mark.parametrize("name", NAMES)
def test_the_events_of_an_earlier_version_tell_progress_tasks_and_the_failure(
    tmp_path: Path, name: str
) -> None:
    files = AttemptFiles.of(tmp_path, "job", 1)
    shutil.copytree(ATTEMPTS / name, files.directory)
    reader = EventsReader(files)
    while reader.advance(2**20):
        pass
    state = reader.ended()
    assert state.progress is not None
    assert (state.progress.total, state.progress.failed) == (5, 1)
    assert state.progress.done == {"mock-0002": 0, "snakemake-0002": 3}[name]
    tasks = ToldTasks(files)
    tasks.advance()
    page = tasks.page(TaskQuery(), None, attempt=1)
    told = {task.rule: task.status.value for task in page.items}
    assert (
        told
        == {
            "mock-0002": {"numbers": "failed"},
            "snakemake-0002": {"a": "completed", "b": "completed", "c": "completed", "d": "failed"},
        }[name]
    )
