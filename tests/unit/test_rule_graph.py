"""The graph of a run's rules as its events tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from runner.engines import rule_graph, task_table
from runner.engines.rule_graph import in_order
from runner.engines.run_events import EventsReader
from runner.jobs import Progress, Reason
from runner.tasks import RuleCounts, RunEnd
from tests.support.told_run import Run

if TYPE_CHECKING:
    from pathlib import Path

CANCELLED = RunEnd(Reason.CANCEL_REQUESTED, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_graph_counts_tasks_by_rule_in_the_order_of_the_work(run: Run) -> None:
    rules = [
        {"rule": "all", "needed": 1, "up_to_date": 0},
        {"rule": "a", "needed": 3, "up_to_date": 2, "checkpoint": True},
    ]
    run.tell("rule_graph", rules=rules, edges=[["a", "all"], ["a", "nowhere"], ["a", "all"], "x", [1, 2]])
    run.tell("run_info", total=4, rules={"a": 3, "all": 1})
    run.run_task(1, "a")
    run.tell("job_finished", jobid=1)
    graph = run.graph()
    assert [(node.rule, node.is_checkpoint) for node in graph.nodes] == [("a", True), ("all", False)]
    assert graph.nodes[0].counts == RuleCounts(pending=2, completed=1, up_to_date=2)
    assert graph.nodes[0].counts.total == 5
    assert graph.edges == (("a", "all"),)
    assert run.graph(CANCELLED).nodes[0].counts == RuleCounts(cancelled=2, completed=1, up_to_date=2)


def test_tasks_that_are_counted_again_are_not_counted_twice(run: Run) -> None:
    for rules in ({"a": 1, "b": "x"}, {"c": 2}):
        run.tell("run_info", total=2, rules=rules)
    assert {node.rule: node.counts.pending for node in run.graph().nodes} == {"c": 2}


def test_a_graph_with_a_circle_has_all_its_rules() -> None:
    assert in_order("abcd", [("c", "d"), ("d", "c"), ("b", "a"), ("a", "a")]) == ["b", "a", "c", "d"]


def test_a_graph_of_more_rules_than_are_kept_is_cut_and_no_sum_of_all(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, most in (
        (rule_graph, "MAX_RULES", 2),
        (rule_graph, "MAX_EDGES", 1),
        (task_table, "MAX_RULES", 2),
    ):
        monkeypatch.setattr(module, name, most)
    run.tell("run_info", total=3, rules=dict.fromkeys("abc", 1))
    assert [node.rule for node in run.graph().nodes] == ["a", "b"]
    rules = [{"rule": name, "needed": 1} for name in "abc"]
    run.tell("rule_graph", rules=rules, edges=[["a", "b"], ["b", "a"], ["b", "c"]])
    graph = run.graph()
    assert (sorted(node.rule for node in graph.nodes), graph.edges) == (["a", "b"], (("a", "b"),))
    reader = EventsReader(run.files)
    reader.advance()
    assert (run.page().left_out, reader.progress) == (3, Progress(3))
    for number, name in enumerate("abc"):
        run.run_task(number, name)
    assert [task.rule for task in run.page().items] == ["a", "", ""]
