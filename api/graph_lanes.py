"""How far across each node of a layered graph stands, with its long lines straight."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Sequence[Sequence[int]]
    Neighbours = Sequence[Sequence[int]]
    Gap = Callable[[int, int], float]

_FREE_ROUNDS: Final = 6
_STRAIGHT_ROUNDS: Final = 3


def lanes(rows: Rows, above: Neighbours, below: Neighbours, lane: Sequence[int], gap: Gap) -> list[float]:
    """A coordinate for each node: near its neighbours, and `gap(left, right)` or more apart within a row.

    Nodes of one lane (those without have -1) get the same coordinate, and so do those that are each other's
    only neighbour, as far as such lines do not cross.
    """
    at = _close_together(rows, above, below, gap)
    blocks = _blocks(rows, above, below, lane)
    after = _apart(rows, blocks, gap)
    order = _in_order(after)
    members: dict[int, list[int]] = {root: [] for root in order}
    for node, root in enumerate(blocks):
        members[root].append(node)
    for turn in range(_STRAIGHT_ROUNDS):
        wanted = {}
        for root, nodes in members.items():
            near = [
                at[each]
                for node in nodes
                if lane[node] < 0
                for each in (*above[node], *below[node])
                if blocks[each] != root
            ]
            if turn == 0 or not near:
                wanted[root] = sum([at[node] for node in nodes]) / len(nodes)
            else:
                wanted[root] = sum(near) / len(near)
        placed = _placed(order, after, wanted)
        at = [placed[root] for root in blocks]
    return at


def _close_together(rows: Rows, above: Neighbours, below: Neighbours, gap: Gap) -> list[float]:
    at = [0.0] * len(above)
    least = [
        list(accumulate((gap(left, right) for left, right in pairwise(row)), initial=0.0)) for row in rows
    ]
    for row, offsets in zip(rows, least, strict=True):
        for node, offset in zip(row, offsets, strict=False):
            at[node] = offset - offsets[-1] / 2
    for turn in range(_FREE_ROUNDS):
        is_down = turn % 2 == 0
        near = above if is_down else below
        for row, offsets in list(zip(rows, least, strict=True))[:: 1 if is_down else -1]:
            _settle(row, offsets, near, at)
    return at


def _settle(row: Sequence[int], offsets: Sequence[float], near: Neighbours, at: list[float]) -> None:
    """Move a row's nodes to the mean of their neighbours, as near as their order and distances allow.

    The least squares under these bounds: nodes that want to overlap become a block that moves as one.
    """
    blocks: list[tuple[float, float, int]] = []  # weight, weighted sum of what is wanted, nodes
    for node, offset in zip(row, offsets, strict=False):
        others = near[node]
        weight = len(others) or 0.1
        wanted = sum([at[each] for each in others]) if others else weight * at[node]
        block = (weight, wanted - weight * offset, 1)
        while blocks and blocks[-1][1] / blocks[-1][0] >= block[1] / block[0]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    index = 0
    for weight, wanted, count in blocks:
        for place in range(index, index + count):
            at[row[place]] = wanted / weight + offsets[place]
        index += count


def _blocks(rows: Rows, above: Neighbours, below: Neighbours, lane: Sequence[int]) -> list[int]:
    """For each node the first of those that it stands in one line with, which may be itself."""
    roots = list(range(len(below)))
    for upper, lower in pairwise(rows):
        place = {node: index for index, node in enumerate(lower)}
        last = -1
        for node in upper:
            for each in below[node]:
                is_straight = lane[each] == lane[node] >= 0 or len(below[node]) == len(above[each]) == 1
                # Of lines that cross here, one ends and begins anew: both can't be straight.
                if is_straight and place[each] > last:
                    roots[each] = roots[node]
                    last = place[each]
    return roots


def _apart(rows: Rows, blocks: list[int], gap: Gap) -> dict[int, dict[int, float]]:
    """For each block those that stand somewhere directly to the right of it, and how far apart at least."""
    after: dict[int, dict[int, float]] = {root: {} for root in blocks}
    for row in rows:
        for left, right in pairwise(row):
            ends = after[blocks[left]]
            ends[blocks[right]] = max(ends.get(blocks[right], 0.0), gap(left, right))
    return after


def _in_order(after: dict[int, dict[int, float]]) -> list[int]:
    waits = dict.fromkeys(after, 0)
    for ends in after.values():
        for right in ends:
            waits[right] += 1
    order = [root for root, count in waits.items() if not count]
    for root in order:
        for right in after[root]:
            waits[right] -= 1
            if not waits[right]:
                order.append(right)
    return order


def _placed(
    order: list[int], after: dict[int, dict[int, float]], wanted: dict[int, float]
) -> dict[int, float]:
    """Near where each block wants to be: the middle between making room to the right and to the left.

    Each of the two keeps the distances, so their mean does, too.
    """
    right = dict(wanted)
    for root in order:
        for other, least in after[root].items():
            right[other] = max(right[other], right[root] + least)
    left = dict(wanted)
    for root in reversed(order):
        left[root] = min([left[root], *(left[other] - least for other, least in after[root].items())])
    return {root: (left[root] + right[root]) / 2 for root in order}
