"""How far each task of a run is, in some sixty bytes: the rest stays in the events file, at its place."""

from __future__ import annotations

import math
import signal
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runner.engines.event_lines import MAX_COUNT, MAX_NAME, is_count, items_of, moment_of, task_numbers
from runner.engines.task_groups import KNOCK_ON, OF_ITS_GROUP, OWN, TaskGroups
from runner.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_TASKS: Final = 100_000  # of one run; more are counted by the run's own progress
MAX_RULES: Final = 2_000
_DENSE: Final = 2 * MAX_TASKS  # Snakemake numbers the tasks it needs and those it does not

_STOPPING: Final = (signal.SIGTERM, signal.SIGKILL)

PENDING, RUNNING, COMPLETED, FAILED = STATES = range(4)
_DROPPED: Final = 4  # planned, until a checkpoint made it needless: it is no task any more
_UNKNOWN_RULE: Final = 0
_SHELL_SIGNAL: Final = 128  # bash's exit code for a command that a signal has ended begins here
_MAX_SIGNAL: Final = 64

# The columns and the type of each: see the array module.
COLUMNS: Final[Mapping[str, str]] = {
    "numbers": "q",
    "rules": "H",
    "states": "B",
    "starts": "B",  # how often it was started, up to 255
    "started": "d",  # seconds since the epoch, NaN while unknown
    "ended": "d",
    "planned": "Q",  # the place of its plan in the events file, 0 without one
    "told": "Q",  # of what it said of itself
    "errors": "Q",  # of why it failed
    "signals": "B",  # that has ended it, 0 for none
}


class Row(NamedTuple):
    """One task as the table knows it."""

    number: int
    rule: str
    state: int
    starts: int
    started: float
    ended: float
    planned: int
    told: int
    error: int
    external: int
    group: str | None
    is_blamed: bool  # for the failure of its group, where it has one


class TaskTable:
    """Takes a run's events. What it keeps is bounded, whatever they say."""

    def __init__(self) -> None:
        self.rules: list[str] = [""]  # the first is the rule of a task that has not told its own yet
        self._rule_index: dict[str, int] = {"": _UNKNOWN_RULE}
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in COLUMNS.items()}
        self._dense = array("i")  # number -> position, -1 for none
        self._sparse: dict[int, int] = {}
        self.counts: list[list[int]] = [_no_tasks()]  # by rule and state
        self._dropped = 0
        self._groups = TaskGroups()
        self._external: dict[int, int] = {}  # position -> the place of what a cluster calls it
        self._order: list[int] | None = None
        self.total = 0  # as the run tells it

    def __len__(self) -> int:
        return len(self.columns["numbers"])

    @property
    def weight(self) -> int:
        """How much of the memory it takes, in tasks."""
        return len(self) + len(self._dense) // 16 + 64

    def left_out(self, needed: int | None) -> int:
        """Tasks that the run counts and has not told one by one, or that are beyond what is kept."""
        return max(0, (self.total if needed is None else needed) - len(self) + self._dropped)

    # ------------------------------------------------------------ what is asked

    def row(self, position: int) -> Row:
        at = {name: column[position] for name, column in self.columns.items()}
        return Row(
            number=at["numbers"],
            rule=self.rules[at["rules"]],
            state=at["states"],
            starts=at["starts"],
            started=at["started"],
            ended=at["ended"],
            planned=at["planned"],
            told=at["told"],
            error=at["errors"],
            external=self._external.get(position, 0),
            group=self._groups.name_of(position),
            is_blamed=self._groups.is_blamed(position),
        )

    def find(self, number: int) -> int | None:
        """The position of the task with this number."""
        position = self._find(number)
        return None if position is None or self.columns["states"][position] == _DROPPED else position

    def _find(self, number: int) -> int | None:
        if 0 <= number < len(self._dense):
            position = self._dense[number]
            return position if position >= 0 else None
        return self._sparse.get(number)

    def ordered(self, *, after: int | None) -> Iterator[int]:
        """The positions of tasks in the order of their numbers, those behind `after`."""
        numbers = self.columns["numbers"]
        if self._order is None or len(self._order) != len(numbers):
            self._order = sorted(range(len(numbers)), key=numbers.__getitem__)
        order, states = self._order, self.columns["states"]
        first = 0 if after is None else bisect_right(order, after, key=numbers.__getitem__)
        for index in range(first, len(order)):
            if states[order[index]] != _DROPPED:
                yield order[index]

    def rule_number(self, rule: str) -> int | None:
        return self._rule_index.get(rule)

    def states(self) -> list[int]:
        """How many tasks there are by state."""
        return [sum(each[state] for each in self.counts) for state in STATES]

    # ------------------------------------------------------------ what is told

    def take(self, event: dict[str, Any], place: int) -> None:
        handler = _HANDLERS.get(event["event"])
        if handler is not None:
            handler(self, event, place)

    def _on_total(self, event: dict[str, Any], _place: int) -> None:
        total = event.get("total")
        if is_count(total):
            self.total = total

    def _on_planned(self, event: dict[str, Any], place: int) -> None:
        for each in items_of(event, "tasks"):
            if isinstance(each, list) and len(each) >= 2 and is_count(each[0]) and isinstance(each[1], str):
                position = self._known(each[0])
                if position is not None:
                    self._set_rule(position, each[1])
                    self.columns["planned"][position] = place

    def _on_dropped(self, event: dict[str, Any], _place: int) -> None:
        for number in task_numbers(event):
            position = self.find(number)
            if position is not None and self.columns["states"][position] == PENDING:
                self._set_state(position, _DROPPED)
                self._dropped += 1

    def _on_started(self, event: dict[str, Any], _place: int) -> None:
        now = moment_of(event)
        columns = self.columns
        for number in task_numbers(event):
            position = self._known(number)
            if position is not None:
                self._set_state(position, RUNNING)
                columns["starts"][position] = min(255, columns["starts"][position] + 1)
                columns["started"][position], columns["ended"][position] = now, math.nan
                columns["errors"][position] = 0
                self._groups.started(position)

    def _on_info(self, event: dict[str, Any], place: int) -> None:
        position = self._position_in(event)
        if position is not None:
            self.columns["told"][position] = place

    def _on_finished(self, event: dict[str, Any], _place: int) -> None:
        position = self._position_in(event)
        if position is not None:
            self._set_state(position, COMPLETED)
            self.columns["ended"][position] = moment_of(event)

    def _on_error(self, event: dict[str, Any], place: int) -> None:
        position = self._position_in(event)
        if position is not None:
            self.columns["signals"][position] = signal_of(event)
            doubt = KNOCK_ON if event.get("knock_on") is True else OWN
            self._fail(position, moment_of(event), place, doubt)

    def _on_external(self, event: dict[str, Any], place: int) -> None:
        position = self._position_in(event)
        if position is not None:
            self._external[position] = place

    def _on_group(self, event: dict[str, Any], _place: int) -> None:
        group = event.get("group")
        if isinstance(group, str) and self._groups.admits(group):
            positions = [self._known(number) for number in task_numbers(event)]
            self._groups.join(group, [position for position in positions if position is not None])

    def _on_group_error(self, event: dict[str, Any], place: int) -> None:
        self._on_group(event, place)
        now = moment_of(event)
        for number in task_numbers(event):
            position = self.find(number)
            if position is not None and self.columns["states"][position] in (PENDING, RUNNING):
                self._fail(position, now, place, OF_ITS_GROUP)

    def stop(self, at: float | None) -> None:
        """The run was stopped then: what failed from then on was running, and has not failed.

        Where None, because it is not known when, what a signal has ended.
        """
        ended, signals = self.columns["ended"], self.columns["signals"]
        for position, state in enumerate(self.columns["states"]):
            if state == FAILED and (signals[position] in _STOPPING if at is None else ended[position] >= at):
                self._set_state(position, RUNNING)

    # ------------------------------------------------------------ how it is kept

    def _position_in(self, event: dict[str, Any]) -> int | None:
        """The task that an event is about, with the rule that it names."""
        number, rule = event.get("jobid"), event.get("rule")
        position = self._known(number) if is_count(number) else None
        if position is not None and isinstance(rule, str):
            self._set_rule(position, rule)
        return position

    def _known(self, number: int) -> int | None:
        """The task's position, a new one if need be; None when there are too many."""
        position = self._find(number)
        if position is not None and self.columns["states"][position] == _DROPPED:
            self._dropped -= 1
            self._set_state(position, PENDING)
        if position is not None or len(self) >= MAX_TASKS:
            return position
        position = len(self)
        for name, value in _NEW.items():
            self.columns[name].append(value)
        self.columns["numbers"][position] = number
        self._index(number, position)
        self.counts[_UNKNOWN_RULE][PENDING] += 1
        return position

    def _index(self, number: int, position: int) -> None:
        if number >= _DENSE:
            self._sparse[number] = position
            return
        missing = number + 1 - len(self._dense)
        if missing > 0:
            self._dense.extend([-1] * missing)
        self._dense[number] = position

    def _set_rule(self, position: int, rule: str) -> None:
        index = self._rule_index.get(rule)
        if index is None:
            name = clean(rule, MAX_NAME)
            index = self._rule_index.get(name)
            if index is None:
                if len(self.rules) >= MAX_RULES:
                    return
                index = self._rule_index[name] = len(self.rules)
                self.rules.append(name)
                self.counts.append(_no_tasks())
        before = self.columns["rules"][position]
        if before != index:
            state = self.columns["states"][position]
            self.counts[before][state] -= 1
            self.counts[index][state] += 1
            self.columns["rules"][position] = index

    def _set_state(self, position: int, state: int) -> None:
        states, counts = self.columns["states"], self.counts[self.columns["rules"][position]]
        counts[states[position]] -= 1
        counts[state] += 1
        states[position] = state

    def _fail(self, position: int, now: float, place: int, doubt: int) -> None:
        self._set_state(position, FAILED)
        self.columns["ended"][position] = now
        self.columns["errors"][position] = place
        self._groups.failed(position, doubt)

    # ------------------------------------------------------------ kept elsewhere

    def extras(self) -> dict[str, Any]:
        """What is not in the columns, as JSON."""
        groups, external = self._groups.as_json(), list(self._external.items())
        return {"rules": self.rules, "total": self.total, "groups": groups, "external": external}

    @classmethod
    def restored(cls, columns: dict[str, array[Any]], extras: Mapping[str, Any]) -> TaskTable:
        """The table that had these. Raises ValueError, TypeError, LookupError: there was none."""
        table = cls()
        size = len(columns["numbers"])
        rules = [clean(rule, MAX_NAME) for rule in extras["rules"]]
        if not is_count(extras["total"]) or len(rules) > MAX_RULES:
            raise ValueError("there is more than can have been told")
        if any(len(column) != size for column in columns.values()) or len(set(rules)) != len(rules):
            raise ValueError("the columns do not fit together")
        if max(len(extras["external"]), len(extras["groups"]["tasks"])) > size:
            raise ValueError("there is more than one for each task")
        if size and not (max(columns["rules"]) < len(rules) and max(columns["states"]) <= _DROPPED):
            raise ValueError("a rule or state is unknown")
        if size and not 0 <= min(columns["numbers"]) <= max(columns["numbers"]) <= MAX_COUNT:
            raise ValueError("a number is none")
        table.rules, table._rule_index = rules, {rule: index for index, rule in enumerate(rules)}
        table.columns = columns
        table.counts = [_no_tasks() for _ in rules]
        for rule, state in zip(columns["rules"], columns["states"], strict=True):
            table.counts[rule][state] += 1
        table._dropped = sum(counts[_DROPPED] for counts in table.counts)
        for position, number in enumerate(columns["numbers"]):
            table._index(number, position)
        table.total = int(extras["total"])
        table._groups = TaskGroups.restored(extras["groups"])
        table._external = {int(position): abs(int(place)) for position, place in extras["external"]}
        return table


_NEW: Final[Mapping[str, float]] = {
    "numbers": 0,
    "rules": _UNKNOWN_RULE,
    "states": PENDING,
    "starts": 0,
    "started": math.nan,
    "ended": math.nan,
    "planned": 0,
    "told": 0,
    "errors": 0,
    "signals": 0,
}

_HANDLERS: Final[Mapping[str, Callable[[TaskTable, dict[str, Any], int], None]]] = {
    "run_info": TaskTable._on_total,  # noqa: SLF001 - the table belongs to the class
    "progress": TaskTable._on_total,  # noqa: SLF001
    "tasks_planned": TaskTable._on_planned,  # noqa: SLF001
    "tasks_dropped": TaskTable._on_dropped,  # noqa: SLF001
    "job_started": TaskTable._on_started,  # noqa: SLF001
    "job_info": TaskTable._on_info,  # noqa: SLF001
    "job_finished": TaskTable._on_finished,  # noqa: SLF001
    "job_error": TaskTable._on_error,  # noqa: SLF001
    "task_external": TaskTable._on_external,  # noqa: SLF001
    "group_info": TaskTable._on_group,  # noqa: SLF001
    "group_error": TaskTable._on_group_error,  # noqa: SLF001
}


def signal_of(failure: dict[str, Any]) -> int:
    """What has ended the task's command, also where the shell says so by its exit code; 0 for nothing."""
    code, number = failure.get("exit_code"), failure.get("exit_signal")
    if type(code) is int and code > _SHELL_SIGNAL:
        number = code - _SHELL_SIGNAL
    return number if type(number) is int and 0 < number <= _MAX_SIGNAL else 0


def _no_tasks() -> list[int]:
    return [0] * (_DROPPED + 1)
