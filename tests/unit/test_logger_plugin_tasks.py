"""What Snakemake's logger plugin tells of a run's tasks: those planned, and why some failed."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.support import logger_plugin
from tests.support.logger_plugin import Task


class Graph:
    """As much of Snakemake's graph of jobs."""

    def __init__(self) -> None:
        self.dependencies: dict[Task, list[Task]] = {}
        self.needed: set[Task] = set()
        self.done: set[Task] = set()

    def add(self, task: Task, *before: Task, needed: bool = True) -> Task:
        self.dependencies[task] = list(before)
        if needed:
            self.needed.add(task)
        return task

    def jobid(self, task: Task) -> int:
        return task.jobid

    def needrun_jobs(self, **_: bool) -> set[Task]:
        return self.needed

    def finished(self, task: Task) -> bool:
        return task in self.done

    @property
    def finished_jobs(self) -> set[Task]:
        return self.done & set(self.dependencies)


class TestThePlan:
    def test_it_follows_a_checkpoint(self) -> None:
        sent: list[tuple[str, dict[str, Any]]] = []
        plan = logger_plugin.part("plan").Plan(lambda name, told: sent.append((name, told)))
        graph = Graph()
        split, old = graph.add(Task(2, "split")), graph.add(Task(3, "old"), needed=False)
        graph.add(Task(0, "all"), graph.add(Task(1, "gather"), split), old)
        plan.catch_up()
        assert sent == []
        plan.begin(graph)
        (name, rules), (_, tasks) = sent
        assert name == "rule_graph"
        assert {node["rule"]: (node["needed"], node["up_to_date"]) for node in rules["rules"]} == {
            "split": (1, 0),
            "old": (0, 1),
            "gather": (1, 0),
            "all": (1, 0),
        }
        assert [node["rule"] for node in rules["rules"] if node.get("checkpoint")] == ["split"]
        assert sorted(rules["edges"]) == [["gather", "all"], ["old", "all"], ["split", "gather"]]
        assert tasks == {
            "tasks": [[0, "all", {"n": "0"}], [1, "gather", {"n": "1"}], [2, "split", {"n": "2"}]]
        }

        sent.clear()
        gather = next(task for task in graph.dependencies if task.jobid == 1)
        del graph.dependencies[split]  # it has run, and nothing names it any more
        graph.needed.remove(split)
        graph.done.add(split)
        graph.dependencies[gather] = [graph.add(Task(4, "part")), graph.add(Task(5, "part"))]
        plan.changed()
        plan.end(lambda name, told: sent.append((name, told)))
        rules, tasks = sent[0][1], sent[-1][1]
        assert {node["rule"]: node["needed"] for node in rules["rules"]}["split"] == 1
        assert ["split", "gather"] in rules["edges"]
        assert ["part", "gather"] in rules["edges"]
        assert [task[0] for task in tasks["tasks"]] == [4, 5]
        assert [name for name, _ in sent] == ["rule_graph", "tasks_planned"]

    def test_what_is_not_needed_any_more_is_dropped(self) -> None:
        sent: list[tuple[str, dict[str, Any]]] = []
        plan = logger_plugin.part("plan").Plan(lambda name, told: sent.append((name, told)))
        graph = Graph()
        tasks = [graph.add(Task(number)) for number in range(450)]
        plan.begin(graph)
        assert [len(told["tasks"]) for name, told in sent if name == "tasks_planned"] == [200, 200, 50]
        graph.needed.remove(tasks[7])
        del graph.dependencies[tasks[7]]
        sent.clear()
        plan.changed()
        plan.catch_up()  # too soon: telling again takes at most a hundredth of the time
        assert sent == []
        plan.end(lambda name, told: sent.append((name, told)))
        assert ("tasks_dropped", {"jobids": [7]}) in sent


class TestFailures:
    def noted(self, *ends: tuple[int, int]) -> dict[int, dict[str, Any]]:
        """What is told of tasks of one group, noticed in this order with these return codes."""
        failures = logger_plugin.part("failures").Failures()
        for number, code in ends:
            failures.note(Task(number, group="pipes"), subprocess.CalledProcessError(code, "x"))
        return {number: failures.take(number) for number, _ in ends}

    def test_the_first_of_a_group_to_fail_is_the_cause(self) -> None:
        assert self.noted((1, 5), (2, -9)) == {
            1: {"exit_code": 5},
            2: {"exit_signal": 9, "knock_on": True},
        }

    @pytest.mark.parametrize("broken", [141, -13])
    def test_a_broken_pipe_is_not_the_cause_whoever_was_noticed_first(self, broken: int) -> None:
        for ends in ([(1, broken), (2, 5)], [(2, 5), (1, broken)]):
            found = self.noted(*ends)
            assert found[1]["knock_on"]
            assert found[2] == {"exit_code": 5}
        assert "knock_on" not in self.noted((1, broken), (2, -9))[1]
