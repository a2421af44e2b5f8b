"""The order within the layers of a graph, with few edges that cross."""

from __future__ import annotations

from bisect import bisect_right, insort
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    Neighbours = Sequence[Sequence[int]]

# So much work for one picture; a larger graph gets fewer rounds, never a longer time.
_WORK: Final = 6_000
_MOST_ROUNDS: Final = 24


def ordered(layers: list[list[int]], above: Neighbours, below: Neighbours) -> list[list[int]]:
    """The nodes of each layer in a better order.

    `above` and `below` are each node's neighbours in the layers before and after its own.
    """
    starts = [_by_visits(layers, below)]
    starts.append(_by_visits(layers[::-1], above)[::-1])
    size = sum(map(len, layers)) + sum(map(len, below))
    rounds = min(_MOST_ROUNDS, max(2, _WORK // max(size, 1)))
    best = [*map(list, starts[0])]
    fewest = _crossings(best, below)
    for current in starts:
        for turn in range(rounds):
            if fewest == 0:
                return best
            _sweep(current, above if turn % 2 == 0 else below, downwards=turn % 2 == 0)
            # Swaps that change nothing lead out of a place where no single one is better.
            _exchange(current, above, below, if_equal=turn % 4 >= 2)
            found = _crossings(current, below)
            if found < fewest:
                best, fewest = [*map(list, current)], found
    return best


def _by_visits(layers: list[list[int]], further: Neighbours) -> list[list[int]]:
    """As a walk from the first layer meets them: what hangs together stands together."""
    met: dict[int, None] = {}
    for layer in layers:
        for root in layer:
            path = [root]
            while path:
                node = path.pop()
                if node not in met:
                    met[node] = None
                    path.extend(reversed(further[node]))
    rank = {node: index for index, node in enumerate(met)}
    return [sorted(layer, key=rank.__getitem__) for layer in layers]


def _sweep(layers: list[list[int]], neighbours: Neighbours, *, downwards: bool) -> None:
    """Sort each layer by where each node's neighbours stand on average."""
    share: dict[int, float] = {}
    for layer in layers if downwards else reversed(layers):
        own = {node: (index + 0.5) / len(layer) for index, node in enumerate(layer)}
        for node in layer:
            near = neighbours[node]
            own[node] = sum([share[each] for each in near]) / len(near) if near else own[node]
        layer.sort(key=own.__getitem__)
        share |= {node: (index + 0.5) / len(layer) for index, node in enumerate(layer)}


def _exchange(layers: list[list[int]], above: Neighbours, below: Neighbours, *, if_equal: bool) -> None:
    """Swap neighbours in a layer wherever that leaves fewer crossings."""
    place = {node: index for layer in layers for index, node in enumerate(layer)}
    for layer in layers:
        near = {
            node: (sorted([place[n] for n in above[node]]), sorted([place[n] for n in below[node]]))
            for node in layer
        }
        for index in range(len(layer) - 1):
            left, right = layer[index], layer[index + 1]
            as_is = sum(map(_inversions, near[left], near[right]))
            if as_is and as_is + if_equal > sum(map(_inversions, near[right], near[left])):
                layer[index], layer[index + 1] = right, left
        place |= {node: index for index, node in enumerate(layer)}


def _inversions(left: list[int], right: list[int]) -> int:
    """How many pairs cross, when the one with the neighbours `left` stands left of the other."""
    if not left or not right or left[-1] <= right[0]:
        return 0
    return sum([len(left) - bisect_right(left, place) for place in right])


def _crossings(layers: list[list[int]], below: Neighbours) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        place = {node: index for index, node in enumerate(lower)}
        passed: list[int] = []
        for node in upper:
            ends = sorted([place[head] for head in below[node]])
            total += sum([len(passed) - bisect_right(passed, end) for end in ends])
            for end in ends:
                insort(passed, end)
    return total
