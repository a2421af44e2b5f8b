"""Tasks of a run that run together, and which one of each group its failure is to blame on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runner.engines.event_lines import MAX_NAME
from runner.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_GROUPS: Final = 10_000
OWN, OF_ITS_GROUP, KNOCK_ON = range(3)
"""How sure it is that a task's failure is nobody else's: the first is certain."""


class TaskGroups:
    """Groups by their names; a task is its position in the table. Those beyond MAX_GROUPS are left out."""

    def __init__(self) -> None:
        self._name: dict[int, str] = {}  # by task
        self._names: dict[str, str] = {}  # one text for all tasks of a group
        self._blamed: dict[str, tuple[int, int]] = {}  # how sure it is, and which task

    def admits(self, group: str) -> bool:
        return clean(group, MAX_NAME) in self._names or len(self._names) < MAX_GROUPS

    def join(self, group: str, tasks: Iterable[int]) -> None:
        name = clean(group, MAX_NAME)
        name = self._names.setdefault(name, name)
        self._name.update(dict.fromkeys(tasks, name))

    def name_of(self, task: int) -> str | None:
        return self._name.get(task)

    def failed(self, task: int, doubt: int) -> None:
        """Of those about which it is equally sure, the first is blamed."""
        name = self._name.get(task)
        if name is not None and (name not in self._blamed or doubt < self._blamed[name][0]):
            self._blamed[name] = doubt, task

    def started(self, task: int) -> None:
        """It is tried again: what failed of it before is nothing to blame any more."""
        name = self._name.get(task)
        if name is not None and self._blamed.get(name, (OWN, -1))[1] == task:
            del self._blamed[name]

    def is_blamed(self, task: int) -> bool:
        """Whether no other of its group is; also where it has none."""
        name = self._name.get(task)
        return name is None or self._blamed.get(name, (OWN, task))[1] == task

    # ------------------------------------------------------------ kept elsewhere

    def as_json(self) -> dict[str, Any]:
        names = list(self._names)
        index = {name: number for number, name in enumerate(names)}
        tasks = [(task, index[name]) for task, name in self._name.items()]
        return {"names": names, "tasks": tasks, "blamed": self._blamed}

    @classmethod
    def restored(cls, document: Mapping[str, Any]) -> TaskGroups:
        """Raises ValueError, TypeError, LookupError: there were none such."""
        groups = cls()
        names = [clean(name, MAX_NAME) for name in document["names"][:MAX_GROUPS]]
        groups._names = dict(zip(names, names, strict=True))
        groups._name = {int(task): names[number] for task, number in document["tasks"]}
        groups._blamed = {
            name: (int(doubt), int(task))
            for name, (doubt, task) in document["blamed"].items()
            if name in groups._names
        }
        return groups
