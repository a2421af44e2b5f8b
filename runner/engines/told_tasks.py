"""The tasks of one attempt and its graph of rules, read from its events file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from runner.engines import task_index
from runner.engines.event_lines import EventLines
from runner.engines.rule_graph import ToldGraph, in_order
from runner.engines.task_details import planned_wildcards, statuses, task_of
from runner.engines.task_table import FAILED, PENDING, STATES, TaskTable
from runner.tasks import RuleCounts, RuleGraph, RuleNode, TaskPage, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.attempt_files import AttemptFiles
    from runner.tasks import RunEnd, Task, TaskQuery

_LONG_BYTES: Final = 512 * 2**10
_PAGE_BYTES: Final = 8 * 2**20
_SHARED_BYTES: Final = 4 * 2**10
_CALL_BYTES: Final = 64 * 2**20  # as much as a well-behaved run writes in all


class ToldTasks:
    """The TaskReader of both engines, and of a run without a job. Not thread-safe.

    An answer is about what has been read; `advance` reads on. `end` tells how the run has ended, None while
    it runs: from then on no task is pending or running.
    """

    def __init__(self, files: AttemptFiles) -> None:
        self._files = files
        self._lines = EventLines(files)
        self._table = TaskTable()
        self._graph = ToldGraph()
        self._knows_the_stop = False

    @property
    def weight(self) -> int:
        """How much memory it takes, in tasks."""
        return self._table.weight + 4 * len(self._graph.edges)

    def advance(self, limit_bytes: int = _CALL_BYTES) -> bool:
        """Read what was written since the last call; whether there is more than the limit let through."""
        return self._lines.read(self._take, limit_bytes)

    def _take(self, event: dict[str, Any], place: int) -> None:
        self._table.take(event, place)
        self._graph.take(event)

    # ------------------------------------------------------------ beside the events file

    def is_long(self) -> bool:
        with self._lines.opened() as fd:
            return fd is not None and os.fstat(fd).st_size >= _LONG_BYTES

    def restore(self) -> bool:
        """Take what `keep` has left, if it is of this very events file; whether it was."""
        kept = task_index.load(self._files)
        if kept is None:
            return False
        self._table, self._graph = kept.table, kept.graph
        self._lines.start_at(kept.events_bytes)
        return True

    def keep(self) -> None:
        """Leave what was read beside the events file, so that it need not be read again after the end."""
        if self.is_long():
            task_index.save(self._files, self._table, self._graph, self._lines.offset)

    # ------------------------------------------------------------ answers

    def page(self, query: TaskQuery, end: RunEnd | None, *, attempt: int) -> TaskPage:
        """A page of tasks, without the lines of their logs."""
        self._note_stop(end)
        table, meaning = self._table, statuses(end)
        states = [s for s in STATES if not query.statuses or meaning[s] in query.statuses]
        rules = {n for rule in query.rules if (n := table.rule_number(rule)) is not None}
        if not query.rules:
            rules = set(range(len(table.rules)))
        total = sum(table.counts[rule][state] for rule in rules for state in states)
        positions: list[int] = []
        if total:
            is_all = total == sum(table.states())
            rule_of, state_of = table.columns["rules"], table.columns["states"]
            for position in table.ordered(after=query.after):
                if is_all or (state_of[position] in states and rule_of[position] in rules):
                    positions.append(position)
                    if len(positions) > query.limit:
                        break
        counts = dict.fromkeys(TaskStatus, 0)
        for state, count in zip(STATES, table.states(), strict=True):
            counts[meaning[state]] += count
        return TaskPage(
            items=tuple(self._tasks(positions[: query.limit], end)),
            total=total,
            counts=counts,
            has_more=len(positions) > query.limit,
            attempt=attempt,
            left_out=table.left_out(self._graph.needed),
        )

    def task(self, number: int, end: RunEnd | None) -> Task | None:
        self._note_stop(end)
        position = self._table.find(number)
        return None if position is None else next(self._tasks([position], end))

    def _note_stop(self, end: RunEnd | None) -> None:
        """Tasks that say they failed when the run was stopped were running until then."""
        if end is None or self._knows_the_stop or not (end.was_stopped or end.stopped_at):
            return
        self._knows_the_stop = True
        self._table.stop(end.stopped_at.timestamp() if end.stopped_at else None)

    def _tasks(self, positions: Sequence[int], end: RunEnd | None) -> Iterator[Task]:
        others_failed = any(counts[FAILED] for counts in self._table.counts)
        with self._lines.opened() as fd:
            lines = _PageLines(fd)
            for position in positions:
                row = self._table.row(position)
                told = lines.at(row.told)
                yield task_of(
                    row,
                    told=told,
                    planned=None if "wildcards" in told else lines.planned(row.planned, row.number),
                    failure=lines.at(row.error),
                    external=lines.at(row.external),
                    end=end,
                    others_failed=others_failed,
                )

    def graph(self, end: RunEnd | None, *, attempt: int) -> RuleGraph:
        self._note_stop(end)
        table, told, meaning = self._table, self._graph, statuses(end)
        counts: dict[str, Mapping[str, int]] = {}
        for name, rule in told.rules.items():
            number = table.rule_number(name)
            known = table.counts[number][: len(STATES)] if number is not None else [0] * len(STATES)
            counts[name] = _counted(meaning, known, needed=rule.needed, up_to_date=rule.up_to_date)
        for name, known in zip(table.rules, table.counts, strict=True):
            if name and name not in counts and sum(known[: len(STATES)]):
                counts[name] = _counted(meaning, known[: len(STATES)])
        nodes = [
            RuleNode(
                name,
                RuleCounts(**counts[name]),
                is_checkpoint=name in told.rules and told.rules[name].is_checkpoint,
            )
            for name in in_order(counts, told.edges)
        ]
        return RuleGraph(tuple(nodes), told.edges, attempt)


class _PageLines:
    """The lines that a page is made of: some are of many tasks, and there is an end to what a page reads."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._left_bytes = _PAGE_BYTES
        self._shared: dict[int, dict[str, Any]] = {}
        self._planned: dict[int, dict[int, object]] = {}

    def at(self, place: int) -> dict[str, Any]:
        """As `EventLines.at`; empty as well once the page has read enough."""
        if place in self._shared:
            return self._shared[place]
        size = EventLines.size_of(place)
        if size > self._left_bytes:
            return {}
        self._left_bytes -= size
        found = EventLines.at(self._fd, place)
        if size >= _SHARED_BYTES:
            self._shared[place] = found
        return found

    def planned(self, place: int, number: int) -> object:
        """The wildcards of a task's plan: looked up, since a line may hold tens of thousands of them."""
        if place not in self._planned:
            self._planned[place] = planned_wildcards(self.at(place))
        return self._planned[place].get(number)


def _counted(
    meaning: Mapping[int, TaskStatus], known: Sequence[int], *, needed: int = 0, up_to_date: int = 0
) -> Mapping[str, int]:
    """Tasks by status; those that are told of in number only are pending, or were never begun."""
    found = dict.fromkeys((status.value for status in TaskStatus), 0)
    for state, count in zip(STATES, known, strict=True):
        found[meaning[state].value] += count
    found[meaning[PENDING].value] += max(0, needed - sum(known))
    return {**found, "up_to_date": up_to_date}
