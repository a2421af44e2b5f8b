"""The graph of a run's rules, as its events tell it: bounded, and in an order that can be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runner.engines.event_lines import MAX_NAME, is_count, items_of
from runner.engines.task_table import MAX_RULES
from runner.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_EDGES: Final = 20_000


@dataclass(frozen=True, slots=True)
class ToldRule:
    """What the run says of one rule: how many of its tasks it does, and how many needed no run."""

    needed: int = 0
    up_to_date: int = 0
    is_checkpoint: bool = False


class ToldGraph:
    """Takes a run's events; a later telling replaces what was told before."""

    def __init__(self) -> None:
        self.rules: dict[str, ToldRule] = {}
        self.edges: tuple[tuple[str, str], ...] = ()
        self.is_told = False

    @property
    def needed(self) -> int | None:
        """All tasks that the run does, where it has told of every rule.

        What its steps are counted against may include tasks that an option like `until` leaves out.
        """
        is_whole = self.is_told and len(self.rules) < MAX_RULES
        return sum(rule.needed for rule in self.rules.values()) if is_whole else None

    @property
    def up_to_date(self) -> int:
        return sum(rule.up_to_date for rule in self.rules.values())

    def take(self, event: dict[str, Any], _place: int = 0) -> None:
        match event["event"]:
            case "rule_graph" if items_of(event, "rules"):
                self._take_graph(event)
            case "run_info" if not self.is_told:
                self._take_counts(event.get("rules"))
            case _:
                pass

    def _take_graph(self, event: dict[str, Any]) -> None:
        rules: dict[str, ToldRule] = {}
        for each in items_of(event, "rules")[:MAX_RULES]:
            if isinstance(each, dict) and isinstance(each.get("rule"), str):
                needed, up_to_date = each.get("needed"), each.get("up_to_date")
                rules[clean(each["rule"], MAX_NAME)] = ToldRule(
                    needed if is_count(needed) else 0,
                    up_to_date if is_count(up_to_date) else 0,
                    each.get("checkpoint") is True,
                )
        edges: dict[tuple[str, str], None] = {}
        for each in items_of(event, "edges")[:MAX_EDGES]:
            if isinstance(each, list) and len(each) == 2 and all(isinstance(end, str) for end in each):
                producer, consumer = (clean(end, MAX_NAME) for end in each)
                if producer in rules and consumer in rules:
                    edges[producer, consumer] = None
        self.rules, self.edges, self.is_told = rules, tuple(edges), True

    def _take_counts(self, rules: object) -> None:
        """Of a run that tells no graph, or has not yet."""
        if isinstance(rules, dict):
            counts = list(rules.items())[:MAX_RULES]
            self.rules = {clean(name, MAX_NAME): ToldRule(count) for name, count in counts if is_count(count)}

    # ------------------------------------------------------------ kept elsewhere

    def as_json(self) -> dict[str, Any]:
        rules = [[name, r.needed, r.up_to_date, r.is_checkpoint] for name, r in self.rules.items()]
        return {"rules": rules, "edges": self.edges, "told": self.is_told}

    @classmethod
    def restored(cls, document: Mapping[str, Any]) -> ToldGraph:
        """Raises ValueError, TypeError, KeyError: it is none."""
        graph = cls()
        for name, needed, up_to_date, is_checkpoint in document["rules"][:MAX_RULES]:
            if not is_count(needed) or not is_count(up_to_date):
                raise ValueError("there are no such numbers of tasks")
            graph.rules[clean(name, MAX_NAME)] = ToldRule(needed, up_to_date, bool(is_checkpoint))
        graph.is_told = document["told"] is True
        graph.edges = tuple(
            (producer, consumer)
            for producer, consumer in document["edges"][:MAX_EDGES]
            if producer in graph.rules and consumer in graph.rules
        )
        return graph


def in_order(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Producers before their consumers, else as they come; what is in a circle, or behind one, comes last."""
    consumers: dict[str, list[str]] = {name: [] for name in names}
    waits_for = dict.fromkeys(consumers, 0)
    for producer, consumer in edges:
        if producer != consumer:
            consumers[producer].append(consumer)
            waits_for[consumer] += 1
    ready = [name for name, count in waits_for.items() if not count]
    for name in ready:  # grows while it is walked
        for consumer in consumers[name]:
            waits_for[consumer] -= 1
            if not waits_for[consumer]:
                ready.append(consumer)
    met = set(ready)
    return ready + [name for name in consumers if name not in met]
