"""The index beside an events file: it saves reading the file again, and is trusted no more than that."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import pytest

from runner.engines import task_groups
from runner.engines.told_tasks import ToldTasks
from runner.tasks import TaskQuery, TaskStatus
from tests.support.told_run import Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def index_of(run: Run) -> str:
    return os.path.join(run.files.directory, "tasks.index")


def kept_run(run: Run) -> bytes:
    run.tell_long_run(1_500)
    run.tasks.advance()
    run.tasks.keep()
    with open(index_of(run), "rb") as file:
        return file.read()


def test_an_index_is_kept_of_long_runs_alone(run: Run) -> None:
    run.run_task(1, "a")
    run.tasks.advance()
    run.tasks.keep()
    assert not os.path.exists(index_of(run))
    assert not ToldTasks(run.files).restore()
    kept_run(run)
    assert ToldTasks(run.files).restore()


def test_an_index_of_a_file_that_has_changed_is_passed_over(run: Run) -> None:
    kept_run(run)
    run.tell("job_error", jobid=7, rule="align", exit_code=1)
    assert not ToldTasks(run.files).restore()
    assert run.task(7).status is TaskStatus.FAILED


def test_half_a_line_that_was_read_before_is_forgotten_with_an_index(run: Run) -> None:
    early = ToldTasks(run.files)
    run.append(b'{"v":2,"event":"job_')
    early.advance()
    run.append(b'started","jobids":[1]}\n')
    kept_run(run)
    assert early.restore()
    run.tell("job_error", jobid=7, rule="align", exit_code=1)
    early.advance()
    task = early.task(7, None)
    assert task is not None
    assert task.status is TaskStatus.FAILED


@pytest.mark.parametrize("kind", ["torn", "flipped", "link", "fifo", "foreign", "empty"])
def test_an_index_that_somebody_else_has_written_is_passed_over(run: Run, tmp_path: Path, kind: str) -> None:
    data = kept_run(run)
    os.unlink(index_of(run))
    match kind:
        case "torn":
            data = data[:-1]
        case "flipped":
            data = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        case "foreign":
            data = b"\x80\x04" + data
        case "empty":
            data = b""
        case _:
            pass
    if kind == "fifo":
        os.mkfifo(index_of(run))
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        os.symlink(tmp_path / "elsewhere", index_of(run))
    else:
        with open(index_of(run), "wb") as file:
            file.write(data)
    assert not ToldTasks(run.files).restore()
    assert run.page().total == 1_500


@pytest.mark.parametrize(
    ("found", "put"),
    [
        (b'"total":1500', b'"total":-150'),
        (b'"total":1500', b'"total":"15"'),
        (b'"","sort","align"', b'"","sort","sort" '),
        (b'[["align",750', b'[["align",-75'),
        (b'"tasks":1500', b'"tasks":1501'),
        pytest.param(b'"external":[', b'"external":[' + b"[1,1]," * 1_500 + b"[1,1]", id="external"),
        pytest.param(b'[],"tasks":[', b'["a"],"tasks":[' + b"[1,0]," * 1_500 + b"[1,0]", id="grouped"),
    ],
)
def test_an_index_that_holds_what_no_run_can_have_told_is_passed_over(
    run: Run, found: bytes, put: bytes
) -> None:
    data = kept_run(run)
    magic, _, rest = data.partition(b"\n")
    body = rest.partition(b"\n")[2]
    assert body.count(found) >= 1
    body = body.replace(found, put, 1)
    with open(index_of(run), "wb") as file:
        file.write(b"%s\n%08x\n%s" % (magic, zlib.crc32(body), body))
    assert not ToldTasks(run.files).restore()


def test_an_index_is_written_over_nothing_that_was_put_in_its_way(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    os.symlink(other, index_of(run) + ".new")
    kept_run(run)
    assert other.read_bytes() == b"precious"
    assert not os.path.islink(index_of(run))


def test_an_index_that_cannot_be_written_costs_nothing_else(run: Run) -> None:
    run.tell_long_run(1_500)
    os.mkdir(f"{run.files.directory}/tasks.index.new")
    run.tasks.advance()
    run.tasks.keep()
    assert not os.path.exists(index_of(run))
    assert run.page().total == 1_500


def test_tasks_are_of_few_groups_and_each_name_is_kept_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_groups, "MAX_GROUPS", 2)
    kept_run(run)
    for number, group in enumerate(("one", "two", "three", "one")):
        run.tell("group_info", group=group, jobids=[number])
    for tasks in (run.tasks, ToldTasks(run.files)):
        tasks.advance()
        tasks.keep()
    restored = ToldTasks(run.files)
    assert restored.restore()
    for tasks in (run.tasks, restored):
        page = tasks.page(TaskQuery(limit=4), None, attempt=1)
        assert [task.group for task in page.items] == ["one", "two", None, "one"]
    with open(index_of(run), "rb") as file:
        assert file.read().count(b'"one"') == 1
