"""Which edges of a graph are drawn, and which layer each node stands in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layers:
    """Each drawn edge leads from a lower layer to a higher one; `backward` ones were turned for that."""

    of: list[int]
    edges: list[Edge]
    backward: frozenset[Edge]  # as they are among `edges`


def in_layers(count: int, edges: Iterable[Edge]) -> Layers:
    """Layers for nodes 0 to `count` - 1, whatever the edges are: doubles, loops and cycles included.

    An edge that others imply is left out, as in Snakemake's own rule graphs.
    """
    after: list[list[int]] = [[] for _ in range(count)]
    for tail, head in dict.fromkeys(edges):
        if tail != head:
            after[tail].append(head)
    order, backward = _sorted(after)
    for tail, head in backward:
        after[tail].remove(head)
    kept = _reduced(order, after)
    turned = [(head, tail) for tail, head in backward if tail not in kept[head]]
    for tail, head in turned:
        kept[tail].append(head)
    return Layers(
        _placed(order, kept),
        [(tail, head) for tail in range(count) for head in kept[tail]],
        frozenset(turned),
    )


def _sorted(after: list[list[int]]) -> tuple[list[int], list[Edge]]:
    """Every node before those that its edges lead to, but for the edges that close a cycle."""
    unseen, open_, done = 0, 1, 2
    state = [unseen] * len(after)
    ended: list[int] = []
    closing: list[Edge] = []
    for root in range(len(after)):
        if state[root] != unseen:
            continue
        state[root] = open_
        path = [(root, iter(after[root]))]
        while path:
            node, heads = path[-1]
            for head in heads:
                if state[head] == open_:
                    closing.append((node, head))
                elif state[head] == unseen:
                    state[head] = open_
                    path.append((head, iter(after[head])))
                    break
            else:
                state[node] = done
                ended.append(node)
                path.pop()
    return ended[::-1], closing


def _reduced(order: Sequence[int], after: list[list[int]]) -> list[list[int]]:
    """Without the edges whose ends are joined by a longer way."""
    place = {node: index for index, node in enumerate(order)}
    reached = [0] * len(after)  # sets of nodes, as bits
    kept: list[list[int]] = [[] for _ in after]
    for node in reversed(order):
        for head in sorted(after[node], key=place.__getitem__):
            if not reached[node] >> head & 1:
                kept[node].append(head)
                reached[node] |= reached[head] | 1 << head
    return kept


def _placed(order: Sequence[int], after: list[list[int]]) -> list[int]:
    """Layers from 0 on: as many as the longest way needs, and each node near what it feeds."""
    before: list[list[int]] = [[] for _ in after]
    for tail, heads in enumerate(after):
        for head in heads:
            before[head].append(tail)
    layer = [0] * len(after)
    for node in order:
        layer[node] = max((layer[tail] + 1 for tail in before[node]), default=0)
    for node in reversed(order):
        # To move it down makes the edges out of it shorter, and those into it longer.
        if len(before[node]) < len(after[node]):
            layer[node] = min(layer[head] for head in after[node]) - 1
    return layer
