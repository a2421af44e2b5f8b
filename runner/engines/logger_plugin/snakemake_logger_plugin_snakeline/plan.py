"""What a run is going to do, read from Snakemake's graph of jobs: its tasks and its graph of rules."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .fields import text, wildcards

_TASKS_A_LINE = 200
_MAX_TASKS = 250_000
_MAX_RULES = 2000
_MAX_EDGES = 20_000
_SHARE = 0.01  # of the run's time, for telling of a graph that keeps changing

Send = Callable[[str, dict[str, Any]], None]


class Plan:
    """Tells of the graph when it is known, and of changes to it as often as that costs next to nothing.

    Called on Snakemake's main thread alone.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._told: dict[int, Any] = {}  # tasks by their numbers
        self._graph: dict[str, Any] | None = None
        self._edges: dict[tuple[str, str], None] = {}
        self._dag: Any = None
        self._has_changed = False
        self._not_before = 0.0
        self.scripts: dict[str, str] = {}  # rule -> its script, notebook or wrapper

    def begin(self, dag: Any) -> None:
        """It is known what the run is going to do."""
        self._dag = dag
        self._tell()

    def changed(self) -> None:
        """A checkpoint has changed the graph."""
        self._has_changed = self._dag is not None

    def catch_up(self) -> None:
        """Tell of changes if it is time to."""
        if self._has_changed and time.monotonic() >= self._not_before:
            self._tell()

    def end(self, send: Send) -> None:
        """Tell of changes that have not been told of yet, by another way."""
        self._send = send
        if self._has_changed:
            self._tell()

    def _tell(self) -> None:
        began = time.monotonic()
        self._has_changed = False
        dag = self._dag
        needed = set(dag.needrun_jobs(exclude_finished=False)) | set(dag.finished_jobs)
        numbered = {dag.jobid(job): job for job in needed}
        gone = {number: job for number, job in self._told.items() if number not in numbered}
        # A checkpoint may leave the graph that it has changed: what has run is a part of the run nonetheless.
        past = {number: job for number, job in gone.items() if dag.finished(job)}
        graph = self._rule_graph(needed, past.values())
        if graph != self._graph:
            self._graph = graph
            self._send("rule_graph", graph)
        self._drop([number for number in gone if number not in past])
        self._tell_tasks(numbered)
        ended = time.monotonic()
        self._not_before = ended + (ended - began) / _SHARE

    def _rule_graph(self, needed: set[Any], past: Iterable[Any]) -> dict[str, Any]:
        rules: dict[str, dict[str, Any]] = {}

        def count(job: Any, *, is_needed: bool) -> None:
            name = job.rule.name
            node = rules.get(name)
            if node is None:
                node = rules[name] = {"rule": name[:1024], "needed": 0, "up_to_date": 0}
                if job.rule.is_checkpoint:
                    node["checkpoint"] = True
                self._note_script(job.rule)
            node["needed" if is_needed else "up_to_date"] += 1

        for job, dependencies in self._dag.dependencies.items():
            count(job, is_needed=job in needed)
            for producer in dependencies:
                if producer.rule.name != job.rule.name:
                    self._edges[producer.rule.name, job.rule.name] = None
        for job in past:
            count(job, is_needed=True)
        # The graph is walked from the targets, so what is made first comes last.
        shown = dict.fromkeys(list(rules)[-_MAX_RULES:][::-1])
        edges = [list(edge) for edge in self._edges if edge[0] in shown and edge[1] in shown]
        return {"rules": [rules[name] for name in shown], "edges": edges[:_MAX_EDGES]}

    def _note_script(self, rule: Any) -> None:
        for kind in ("script", "notebook", "wrapper", "cwl", "template_engine"):
            found = getattr(rule, kind, None)
            if isinstance(found, str) and found:
                self.scripts[rule.name] = found[:1024]
                return

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._told[number]
        for piece in _pieces(sorted(numbers)):
            self._send("tasks_dropped", {"jobids": piece})

    def _tell_tasks(self, numbered: dict[int, Any]) -> None:
        new = sorted(numbered.keys() - self._told.keys())[: _MAX_TASKS - len(self._told)]
        self._told.update((number, numbered[number]) for number in new)
        for piece in _pieces(new):
            tasks = [(number, self._told[number]) for number in piece]
            self._send("tasks_planned", {"tasks": [_planned(number, job) for number, job in tasks]})


def _planned(number: int, job: Any) -> list[Any]:
    return [number, text(job.rule.name), wildcards(job.wildcards_dict)]


def _pieces(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), _TASKS_A_LINE):
        yield numbers[start : start + _TASKS_A_LINE]
