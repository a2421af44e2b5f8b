"""The tasks of a run as its events tell them, whatever those say."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.engines import task_table
from runner.engines.told_tasks import ToldTasks
from runner.jobs import Reason
from runner.tasks import RuleCounts, RuleGraph, RunEnd, Task, TaskPage, TaskQuery, TaskStatus
from tests.support.told_run import Run

if TYPE_CHECKING:
    from pathlib import Path

CANCELLED = RunEnd(Reason.CANCEL_REQUESTED, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def numbers(page: TaskPage) -> list[int]:
    return [task.number for task in page.items]


def shown(page: TaskPage) -> dict[int, str]:
    return {task.number: task.status.value for task in page.items}


def counted(page: TaskPage) -> dict[str, int]:
    return {status.value: count for status, count in page.counts.items() if count}


def tell_four(run: Run) -> None:
    """One of each: completed, failed, running, pending."""
    run.tell("tasks_planned", tasks=[[4, "d", {"x": "4"}], [1, "a", {}], [2, "b", {}], [3, "a", {}]])
    for number, rule in ((1, "a"), (2, "b"), (3, "a")):
        run.run_task(number, rule, t=10.0 + number)
    run.tell("job_finished", t=20.0, jobid=1)
    run.tell("job_error", t=21.0, jobid=2, rule="b", exit_code=137, log=["b.log"])


def test_a_run_that_has_told_nothing_has_no_tasks(run: Run) -> None:
    page = run.page()
    assert (page.items, page.total, page.has_more, page.left_out) == ((), 0, False, 0)
    assert run.graph() == RuleGraph((), (), 1)
    assert run.tasks.task(1, None) is None


def test_a_task_tells_all_that_is_known_of_it(run: Run) -> None:
    told = {"input": ["in/x"], "output": ["out/x"], "log": ["x.log"], "benchmark": ["x.tsv"]}
    more = {"threads": 4, "priority": 7, "resources": {"mem_mb": 100, "queue": "long", "none": None}}
    how = {"reason": "Missing output", "shellcmd": "run x", "script": "x.py", "message": "Doing x"}
    run.run_task(3, "align", t=10.5, wildcards={"s": "x"}, **told, **more, **how, checkpoint=True, local=True)
    run.tell("task_external", jobid=3, external_id="4711")
    run.tell("job_finished", t=12.0, jobid=3)
    assert run.task(3) == Task(
        number=3,
        rule="align",
        status=TaskStatus.COMPLETED,
        wildcards={"s": "x"},
        attempt=1,
        started_at=datetime.fromtimestamp(10.5, UTC),
        ended_at=datetime.fromtimestamp(12.0, UTC),
        reason="Missing output",
        message="Doing x",
        threads=4,
        priority=7,
        resources={"mem_mb": 100, "queue": "long", "none": None},
        input=("in/x",),
        output=("out/x",),
        log=("x.log",),
        benchmark=("x.tsv",),
        shell_command="run x",
        script="x.py",
        is_checkpoint=True,
        is_local=True,
        external_id="4711",
    )


def test_a_failed_task_has_the_log_that_its_cluster_has_written_too(run: Run) -> None:
    run.run_task(3, "align", t=10.5, log=["x.log"])
    run.tell("job_error", jobid=3, rule="align", log=["x.log", ".snakemake/slurm_logs/rule_align/7.log"])
    assert run.task(3).log == ("x.log", ".snakemake/slurm_logs/rule_align/7.log")
    run.tell("job_started", jobids=[3])
    assert run.task(3).log == ("x.log",)


def test_each_task_is_where_its_events_say(run: Run) -> None:
    tell_four(run)
    page = run.page()
    assert shown(page) == {1: "completed", 2: "failed", 3: "running", 4: "pending"}
    assert counted(page) == {"completed": 1, "failed": 1, "running": 1, "pending": 1}
    assert run.task(4).wildcards == {"x": "4"}
    error = run.task(2).error
    assert error is not None
    assert (error.message, error.exit_code, error.is_root) == (
        "its command exited with 137, as after SIGKILL",
        137,
        True,
    )


@pytest.mark.parametrize(
    ("query", "expected", "total"),
    [
        ({"limit": 2}, [1, 2], 4),
        ({"limit": 2, "after": 2}, [3, 4], 4),
        ({"after": 4}, [], 4),
        ({"statuses": (TaskStatus.PENDING, TaskStatus.FAILED)}, [2, 4], 2),
        ({"statuses": (TaskStatus.CANCELLED,)}, [], 0),
        ({"rules": ("a",)}, [1, 3], 2),
        ({"rules": ("a", "d", "nowhere"), "statuses": (TaskStatus.RUNNING,)}, [3], 1),
        ({"rules": ("nowhere",)}, [], 0),
    ],
)
def test_a_page_holds_what_was_asked_for(
    run: Run, query: dict[str, Any], expected: list[int], total: int
) -> None:
    tell_four(run)
    page = run.page(**query)
    assert (numbers(page), page.total) == (expected, total)
    assert page.has_more == (query.get("limit") == 2 and query.get("after") is None)
    assert sum(page.counts.values()) == 4


@pytest.mark.parametrize(
    ("end", "running", "pending", "text"),
    [
        (CANCELLED, "cancelled", "cancelled", None),
        (RunEnd(Reason.TIMED_OUT), "failed", "cancelled", "as long as it may"),
        (RunEnd(Reason.OUT_OF_MEMORY), "failed", "cancelled", "ran out of memory"),
        (RunEnd(Reason.KILLED_BY_SIGNAL), "failed", "cancelled", "was killed"),
        (RunEnd(Reason.LOST), "failed", "cancelled", "not known"),
        (RunEnd(Reason.EXITED_NONZERO), "failed", "cancelled", "no end of its own"),
        (RunEnd(None), "failed", "cancelled", "no end of its own"),
        (RunEnd(Reason.EXITED_NONZERO, is_interrupted=True), "cancelled", "cancelled", None),
        (RunEnd(Reason.EXITED_ZERO), "completed", "cancelled", None),
    ],
)
def test_when_the_run_has_ended_no_task_goes_on(
    run: Run, end: RunEnd, running: str, pending: str, text: str | None
) -> None:
    tell_four(run)
    assert shown(run.page(end)) == {1: "completed", 2: "failed", 3: running, 4: pending}
    task = run.task(3, end)
    assert task.ended_at == end.at
    if text is None:
        assert task.error is None
    else:
        assert task.error is not None
        assert text in task.error.message
        assert not task.error.is_root  # another has failed on its own before
    states = (TaskStatus(running), TaskStatus(pending))
    assert numbers(run.page(end, statuses=states))[-2:] == [3, 4]
    assert run.graph(end).nodes[0].counts.running == 0


@pytest.mark.parametrize(
    ("reason", "running"), [(Reason.TIMED_OUT, "failed"), (Reason.CANCEL_REQUESTED, "cancelled")]
)
@pytest.mark.parametrize(("stopped_at", "is_late"), [(21.0, True), (1000.0, False)])
def test_what_fails_while_the_run_is_stopped_was_running_until_then(
    run: Run, reason: Reason, running: str, stopped_at: float, *, is_late: bool
) -> None:
    tell_four(run)
    end = RunEnd(reason, stopped_at=datetime.fromtimestamp(stopped_at, UTC))
    second = running if is_late else "failed"
    assert shown(run.page(end)) == {1: "completed", 2: second, 3: running, 4: "cancelled"}
    assert run.graph(end).nodes[0].counts.running == 0
    task = run.task(2, end)
    assert (task.status.value, task.error is None) == (second, second == "cancelled")
    assert task.error is None or ("It was stopped" in task.error.message) == is_late


def test_a_task_that_is_tried_again_is_no_failure_for_ever(run: Run) -> None:
    for _ in range(2):
        run.run_task(1, "a")
        run.tell("job_error", jobid=1, rule="a", exit_code=1)
    assert run.task(1).status is TaskStatus.FAILED
    run.run_task(1, "a", t=5.0)
    assert (run.task(1).status, run.task(1).error, run.task(1).ended_at) == (TaskStatus.RUNNING, None, None)
    run.tell("job_finished", jobid=1)
    assert (run.task(1).status, run.task(1).attempt) == (TaskStatus.COMPLETED, 3)


def test_a_failed_group_fails_its_members_and_one_of_them_is_the_root(run: Run) -> None:
    run.tell("group_info", group="g", jobids=[1, 2, 3])
    run.tell("job_started", jobids=[1, 2, 3])
    run.tell("job_finished", jobid=1)
    run.tell("group_error", group="g", jobids=[1, 2, 3], message="the node is gone")
    assert shown(run.page()) == {1: "completed", 2: "failed", 3: "failed"}
    errors = {number: run.task(number).error for number in (2, 3)}
    assert [error.message for error in errors.values() if error] == ["the node is gone"] * 2
    assert [error.is_root for error in errors.values() if error] == [True, False]
    assert run.task(1).group == "g"
    run.tell("job_error", jobid=3, rule="c", exit_code=2)
    run.tell("job_error", jobid=2, rule="b", exit_signal=13, knock_on=True)
    roots = {number: error.is_root for number in (2, 3) if (error := run.task(number).error)}
    assert roots == {2: False, 3: True}


def test_a_task_that_a_checkpoint_made_needless_is_none(run: Run) -> None:
    run.tell("run_info", total=2, rules={"a": 2})
    run.tell("tasks_planned", tasks=[[1, "a", {}], [2, "a", {}], [3, "b", {}]])
    run.tell("tasks_dropped", jobids=[3, 2, 9])
    page = run.page()
    assert (numbers(page), page.total, sum(page.counts.values()), page.left_out) == ([1], 1, 1, 1)
    assert run.tasks.task(3, None) is None
    run.tell("tasks_planned", tasks=[[3, "b", {"x": "y"}]])
    assert run.task(3).wildcards == {"x": "y"}
    assert (numbers(run.page()), run.page().left_out) == ([1, 3], 0)


def test_an_older_form_tells_what_it_knows(run: Run) -> None:
    for event in (
        {"event": "run_info", "total": 3, "rules": {"a": 3}, "cores": 1},
        {"event": "job_started", "jobids": [5]},
        {"event": "job_info", "jobid": 5, "rule": "a", "wildcards": {}, "shellcmd": None},
    ):
        run.append(json.dumps({"v": 1, "t": 1.0, **event}).encode() + b"\n")
    run.append(b'{"v":1,"event":"job_fin')  # a last line that is torn
    page = run.page()
    assert (shown(page), page.left_out) == ({5: "running"}, 2)
    assert run.graph().nodes[0].counts == RuleCounts(pending=2, running=1)


def test_a_file_that_is_written_anew_tells_nothing_of_other_tasks(run: Run) -> None:
    run.run_task(1, "a", output=["secret"])
    run.run_task(2, "b", output=["own"])
    assert run.task(2).output == ("own",)
    with open(run.files.events, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    # The same lengths, other numbers and rules: what stands at a task's place is not its own.
    with open(run.files.events, "wb") as file:
        file.write(
            b"".join(lines).replace(b'"jobid": 2', b'"jobid": 1').replace(b'"rule": "a"', b'"rule": "b"')
        )
    assert (run.task(1).output, run.task(2).output) == ((), ())
    os.truncate(run.files.events, 0)
    assert (run.task(1).output, run.task(1).rule) == ((), "a")


@pytest.mark.parametrize(
    "fields",
    [
        {"wildcards": [1], "input": "x", "output": {"a": 1}, "threads": "4", "priority": 10**400},
        {"wildcards": {"a": None, "b": [1]}, "resources": {"x": float("inf"), "y": [1], "z": 10**400}},
        {"reason": 5, "shellcmd": ["x"], "message": "\ud800", "log": ["\ud800", 3], "benchmark": None},
        {"t": 1e300},
        {"t": 10**400},
        {"t": "noon"},
        {"t": -1},
    ],
)
def test_what_makes_no_sense_is_left_out(run: Run, fields: dict[str, Any]) -> None:
    run.tell("job_started", jobids=[1, "2", -3, 10**12, None])
    run.tell("job_info", **{"jobid": 1, "rule": "a", **fields})
    run.tell("job_error", **{"jobid": 1, "rule": "a", "exit_code": 999, "exit_signal": 999, **fields})
    task = run.task(1)
    told = [task.wildcards, task.resources, task.reason, task.message, task.log]
    json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    assert numbers(run.page()) == [1]


EVENTS = st.sampled_from(sorted(task_table._HANDLERS.keys() | {"rule_graph"}))
SMALL = st.integers(0, 5) | st.none() | st.text(max_size=2)
NUMBERS = st.lists(SMALL, max_size=4)
FIELDS = st.fixed_dictionaries(
    {"jobid": SMALL, "rule": SMALL, "jobids": NUMBERS, "group": SMALL, "total": SMALL},
    optional={
        "tasks": st.lists(st.tuples(SMALL, st.text(max_size=2), st.none()), max_size=3),
        "rules": st.lists(st.fixed_dictionaries({"rule": st.text(max_size=1), "needed": SMALL}), max_size=3),
        "edges": st.lists(st.tuples(st.text(max_size=1), st.text(max_size=1)), max_size=3),
    },
)


@settings(max_examples=60)
@given(events=st.lists(st.tuples(EVENTS, FIELDS), max_size=12), end=st.sampled_from([None, CANCELLED]))
def test_whatever_a_run_tells_the_counts_are_those_of_the_tasks(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, dict[str, Any]]], end: RunEnd | None
) -> None:
    run = Run(tmp_path_factory.mktemp("any"))
    for event, fields in events:
        run.tell(event, **fields)
    page = run.page(end, limit=1000)
    found = {status: sum(task.status is status for task in page.items) for status in TaskStatus}
    assert found == dict(page.counts)
    assert numbers(page) == sorted(set(numbers(page)))
    assert page.total == len(page.items)
    for status in TaskStatus:
        assert run.page(end, statuses=(status,), limit=1000).total == page.counts[status]
    run.graph(end)
    again = Run.__new__(Run)
    again.tasks, again.files = ToldTasks(run.files), run.files
    run.tasks._table = task_table.TaskTable.restored(run.tasks._table.columns, run.tasks._table.extras())
    assert run.page(end, limit=1000) == page


def test_a_long_run_takes_little_memory(run: Run) -> None:
    run.tell_long_run(2_500)
    tracemalloc.start()
    run.tasks.advance()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 0.75 * 2**20  # of 1.8 MB of events


def test_a_page_of_a_long_run_takes_little_time(run: Run) -> None:
    run.tell_long_run(10_000)
    run.tasks.advance()
    run.tasks.keep()
    again = ToldTasks(run.files)
    began = time.thread_time()
    assert again.restore()
    page = again.page(TaskQuery(limit=50, after=5_000, rules=("align",)), None, attempt=1)
    took_s = time.thread_time() - began
    assert page == run.page(limit=50, after=5_000, rules=("align",))
    assert (page.total, len(page.items), page.items[0].wildcards) == (5_000, 50, {"sample": "s05001"})
    assert took_s < 0.5  # some 20 ms where nothing else runs


def test_more_tasks_than_are_kept_are_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_table, "MAX_TASKS", 3)
    run.tell("run_info", total=5, rules={"a": 5})
    run.tell("tasks_planned", tasks=[[number, "a", {}] for number in range(5)])
    for number in range(5):
        run.run_task(number, "a")
        run.tell("job_finished", jobid=number)
    page = run.page()
    assert (numbers(page), page.left_out, counted(page)) == ([0, 1, 2], 2, {"completed": 3})


def test_a_number_beyond_all_others_takes_no_more_room_than_another(run: Run) -> None:
    run.run_task(10**7, "a")
    assert run.task(10**7).rule == "a"
    assert run.tasks.weight < 100


def test_a_page_of_tasks_that_were_planned_in_one_long_line_takes_little_time(run: Run) -> None:
    run.tell("tasks_planned", tasks=[[number, "a", {"n": "1"}] for number in range(35_000)])
    run.tasks.advance()
    began = time.thread_time()
    run.page(limit=1, after=34_000)
    one_s = time.thread_time() - began
    began = time.thread_time()
    page = run.page(limit=500, after=34_000)
    assert time.thread_time() - began < 5 * one_s  # the line walked for each: more than ten times
    assert {task.wildcards["n"] for task in page.items} == {"1"}


def test_a_page_of_long_lines_has_an_end(run: Run) -> None:
    """And what is told of many tasks in one line is read once: else it would take half a minute."""
    many, long = list(range(400)), "x" * 2**19
    run.tell("tasks_planned", tasks=[[number, "a", {}] for number in many], x=long)
    run.tell("tasks_planned", tasks=[[number, "a", {"n": str(number)}] for number in many[::2]], x=long)
    run.tell("group_error", group="g", jobids=many, message="gone", x=long)
    for number in (396, 397, 398, 399):
        run.tell("job_info", jobid=number, rule="a", shellcmd="x" * 900_000)
    began = time.thread_time()
    page = run.page(limit=500)
    assert time.thread_time() - began < 2  # some 0.1 s where nothing else runs
    assert [task.wildcards for task in page.items[:3]] == [{"n": "0"}, {}, {"n": "2"}]
    assert {task.error.message for task in page.items if task.error} == {"gone"}
    for number in range(396):
        run.tell("job_info", jobid=number, rule="a", shellcmd="x" * 100_000)
    commands = sum(len(task.shell_command or "") for task in run.page(limit=500).items)
    assert 4 * 2**20 < commands <= 8 * 2**20
