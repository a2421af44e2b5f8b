"""A run that is told of event by event, and read as people ask about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.engines.told_tasks import ToldTasks
from runner.tasks import RuleGraph, RunEnd, Task, TaskPage, TaskQuery
from tests.support.event_files import EventsFile

if TYPE_CHECKING:
    from pathlib import Path


class Run(EventsFile):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tasks = ToldTasks(self.files)

    def page(self, end: RunEnd | None = None, **query: Any) -> TaskPage:
        self.tasks.advance()
        return self.tasks.page(TaskQuery(**query), end, attempt=1)

    def task(self, number: int, end: RunEnd | None = None) -> Task:
        self.tasks.advance()
        found = self.tasks.task(number, end)
        assert found is not None
        return found

    def graph(self, end: RunEnd | None = None) -> RuleGraph:
        self.tasks.advance()
        return self.tasks.graph(end, attempt=1)
