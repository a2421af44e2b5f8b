"""Where the boxes and the lines of a graph stand, whatever the graph is."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from api import graph_layout
from api.graph_lanes import lanes
from api.graph_layers import in_layers
from api.graph_layout import layout
from tests.support.example_graph import EXAMPLE

if TYPE_CHECKING:
    import pytest

    from api.graph_layers import Edge
    from api.graph_layout import Layout, Point

BOX = (100.0, 40.0)
Box = tuple[float, float, float, float]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Point], list[Edge]]:
    """Boxes of several sizes and edges in any direction: doubles, loops and cycles among them."""
    count = draw(st.integers(0, 12))
    sizes = [(draw(st.sampled_from([40.0, 100.0, 230.0])), 40.0) for _ in range(count)]
    node = st.integers(0, max(count - 1, 0))
    return sizes, draw(st.lists(st.tuples(node, node), max_size=30)) if count else []


def boxes(placed: Layout) -> list[Box]:
    return [
        (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        for (x, y), (wide, high) in zip(placed.centres, placed.sizes, strict=True)
    ]


def along(placed: Layout, point: Point) -> float:
    return point[1] if placed.direction == "down" else point[0]


@given(graphs())
def test_no_box_covers_another_or_a_line_and_nothing_is_outside(
    graph: tuple[list[Point], list[Edge]],
) -> None:
    placed = layout(*graph)
    found = boxes(placed)
    assert placed == layout(*graph)
    for left, top, right, bottom in found:
        assert -0.01 <= left <= right <= placed.width + 0.01
        assert -0.01 <= top <= bottom <= placed.height + 0.01
    for a, b in combinations(found, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1], (a, b)
    for line in placed.lines:
        for (x0, y0), (x1, y1) in line.stretches[1:-1]:  # those on its way past a layer
            for left, top, right, bottom in found:
                assert not (left < x0 < right and top < (y0 + y1) / 2 < bottom)
                assert not (top < y0 < bottom and left < (x0 + x1) / 2 < right)
        for before, after in pairwise(line.stretches):
            forward = along(placed, after[0]) > along(placed, before[1])
            assert forward is not line.is_back


@given(graphs())
def test_every_edge_is_drawn_or_implied(graph: tuple[list[Point], list[Edge]]) -> None:
    sizes, edges = graph
    layers = in_layers(len(sizes), edges)
    assert all(layers.of[tail] < layers.of[head] for tail, head in layers.edges)
    drawn: dict[int, set[int]] = {}
    for tail, head in layers.edges:
        drawn.setdefault(tail, set()).add(head)

    def reach(start: int) -> set[int]:
        met: set[int] = set()
        left = [start]
        while left:
            for head in drawn.get(left.pop(), set()) - met:
                met.add(head)
                left.append(head)
        return met

    for tail, head in edges:
        assert tail == head or head in reach(tail) or tail in reach(head)
    assert {frozenset(edge) for edge in layers.edges} <= {frozenset(edge) for edge in edges}


def test_an_edge_that_a_longer_way_implies_is_left_out() -> None:
    assert in_layers(3, [(0, 1), (1, 2), (0, 2)]).edges == [(0, 1), (1, 2)]


def test_the_edge_that_closes_a_cycle_goes_back() -> None:
    placed = layout([BOX] * 3, [(0, 1), (1, 2), (2, 0)])
    assert [line.is_back for line in placed.lines].count(True) == 1
    assert len({y for _, y in placed.centres}) == 3


def test_a_rule_stands_next_to_what_it_feeds() -> None:
    # The last one could stand in the first layer, far away from its only reader.
    assert in_layers(5, [(0, 1), (1, 2), (2, 3), (4, 3)]).of == [0, 1, 2, 3, 2]


def test_a_chain_is_straight_and_a_tree_crosses_nothing() -> None:
    chain = layout([BOX, (230.0, 40.0), BOX], [(0, 1), (1, 2)])
    assert len({x for x, _ in chain.centres}) == 1
    tree = layout([BOX] * 7, [(0, 2), (1, 3), (0, 4), (1, 5), (0, 6)])
    ends = [(line.stretches[0][1][0], line.stretches[-1][0][0]) for line in tree.lines]
    assert not [1 for a, b in combinations(ends, 2) if (a[0] - b[0]) * (a[1] - b[1]) < 0]


def test_long_lines_to_one_box_share_a_straight_lane() -> None:
    # Each of the chain's boxes also feeds a box of its own, and all of those feed the last one.
    chain = [(n, n + 1) for n in range(5)]
    leaves = [(n, n + 10) for n in range(5)] + [(n + 10, 20) for n in range(5)] + [(5, 20)]
    placed = layout([BOX] * 21, chain + leaves)
    lanes = [line for line in placed.lines if len(line.stretches) > 2 and line.has_tip]
    across = {stretch[0][0] for line in lanes for stretch in line.stretches[1:-1]}
    assert len(across) == 1
    # Six edges end there: the two from the layer before it, and the lane that the other four have joined.
    assert sum(line.has_tip for line in placed.lines if line.stretches[-1] == lanes[0].stretches[-1]) == 3


def test_long_lines_and_only_neighbours_are_straight_in_a_whole_picture() -> None:
    names = {node.rule: number for number, node in enumerate(EXAMPLE.nodes)}
    edges = [(names[tail], names[head]) for tail, head in EXAMPLE.edges]
    placed = layout([(100.0 + 13 * number, 40.0) for number in names.values()], edges)
    passing = [line for line in placed.lines if len(line.stretches) > 2]
    assert len(passing) > 1
    assert all(len({stretch[0][0] for stretch in line.stretches[1:-1]}) == 1 for line in passing)
    for tail, head in (("align", "dedup"), ("call", "gather")):
        assert placed.centres[names[tail]][0] == placed.centres[names[head]][0]


def test_of_lanes_that_cross_one_bends_and_all_keep_their_distance() -> None:
    rows = [[0], [1, 2], [3, 4], [5]]
    above: list[list[int]] = [[], [0], [0], [2], [1], [3, 4]]
    below: list[list[int]] = [[1, 2], [4], [3], [5], [5], []]
    at = lanes(rows, above, below, [-1, 0, 1, 1, 0, -1], lambda _left, _right: 10.0)
    assert at[2] - at[1] >= 10
    assert at[4] - at[3] >= 10


def test_it_goes_the_way_that_needs_less_room() -> None:
    fan = layout([BOX] * 61, [(0, n) for n in range(1, 61)])
    chain = layout([BOX] * 30, [(n, n + 1) for n in range(29)])
    assert (fan.direction, chain.direction) == ("right", "down")


def test_where_too_many_lines_pass_the_longest_go_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_layout, "_PASSING", 3)
    sides = [edge for n in range(7, 12) for edge in ((0, n), (n, 6))]
    edges = [(n, n + 1) for n in range(6)] + sides
    placed = layout([BOX] * 12, edges)
    assert all(len(line.stretches) == 2 for line in placed.lines)
