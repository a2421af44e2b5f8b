"""What a run is going to do: which of its rules, and what is told of them before and as they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mock_snakemake.snakefile import waits_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mock_snakemake.snakefile import Rule

_TASKS_A_LINE = 200


class Plan:
    """The rules that are wanted, each behind those it waits for, and those of them that have to be done.

    Every rule is one task; the first rule of a Snakefile is number 0, as the default target is in Snakemake.
    """

    def __init__(self, rules: list[Rule], wanted: list[Rule], is_to_do: Callable[[Rule], bool]) -> None:
        self._wanted = wanted
        self._before = {rule.name: [other.name for other in waits_for(rule, rules)] for rule in wanted}
        self._number = {rule.name: (place + 1) % len(wanted) for place, rule in enumerate(wanted)}
        self.to_do = [rule for rule in wanted if is_to_do(rule)]

    def number(self, rule: Rule) -> int:
        return self._number[rule.name]

    def waits_for_any(self, rule: Rule, names: set[str]) -> bool:
        return not names.isdisjoint(self._before[rule.name])

    def rule_graph(self) -> dict[str, Any]:
        to_do = {rule.name for rule in self.to_do}
        nodes = []
        for rule in self._wanted:
            node: dict[str, Any] = {"rule": rule.name}
            node.update(needed=int(rule.name in to_do), up_to_date=int(rule.name not in to_do))
            nodes.append({**node, "checkpoint": True} if rule.is_checkpoint else node)
        edges = [
            [before, rule.name]
            for rule in self._wanted
            for before in self._before[rule.name]
            if before in self._number
        ]
        return {"rules": nodes, "edges": edges}

    def tasks(self) -> Iterable[list[list[Any]]]:
        """Number, name and wildcards of what is to be done, as many at a time as go into a line."""
        for start in range(0, len(self.to_do), _TASKS_A_LINE):
            yield [[self.number(rule), rule.name, {}] for rule in self.to_do[start : start + _TASKS_A_LINE]]

    def job_info(self, rule: Rule) -> dict[str, Any]:
        """What the Snakefile says of it; of a rule's commands nothing, since none is run."""
        return {
            "jobid": self.number(rule),
            "rule": rule.name,
            "input": list(rule.inputs),
            "output": list(rule.outputs),
            "log": list(rule.logs),
            "benchmark": list(rule.benchmarks),
            "threads": rule.threads,
            "priority": 0,
            "script": rule.script,
            "checkpoint": rule.is_checkpoint,
            "local": True,
        }


def narrowed(wanted: list[Rule], rules: list[Rule], until: list[str], omit_from: list[str]) -> list[Rule]:
    """Those that `until` needs, if it names any, without `omit_from` and what waits for that."""
    kept = _with_what_they_need(wanted, rules, until) if until else wanted
    left_out: set[str] = set()
    for rule in kept:
        if is_named(rule, omit_from) or any(other.name in left_out for other in waits_for(rule, rules)):
            left_out.add(rule.name)
    return [rule for rule in kept if rule.name not in left_out]


def forced(wanted: list[Rule], rules: list[Rule], names: list[str]) -> set[str]:
    """The rules named, and those that wait for them."""
    found: set[str] = set()
    for rule in wanted:
        if is_named(rule, names) or any(other.name in found for other in waits_for(rule, rules)):
            found.add(rule.name)
    return found


def is_named(rule: Rule, names: list[str]) -> bool:
    """Whether one of the names is the rule's or that of a file it makes."""
    return any(name == rule.name or rule.makes(name) for name in names)


def _with_what_they_need(wanted: list[Rule], rules: list[Rule], names: list[str]) -> list[Rule]:
    needed: set[str] = set()
    for rule in reversed(wanted):
        if rule.name in needed or is_named(rule, names):
            needed.add(rule.name)
            needed.update(other.name for other in waits_for(rule, rules))
    return [rule for rule in wanted if rule.name in needed]
