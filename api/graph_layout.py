"""Places the boxes of a graph and the lines between them: in layers, as Sugiyama, Tagawa and Toda describe.

Pure arithmetic: the same graph has the same layout everywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from api.graph_lanes import lanes
from api.graph_layers import Edge, Layers, in_layers
from api.graph_order import ordered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Point = tuple[float, float]
Direction = Literal["down", "right"]

_SIBLINGS: Final = {"down": 22.0, "right": 14.0}  # between the boxes of a layer
_LINES: Final = 16.0  # between a line that passes a layer and what is beside it
_LAYERS: Final = {"down": 42.0, "right": 54.0}
_WIDE: Final = 1280.0  # what is seen at once; going down from there is less trouble than going right
_HIGH: Final = 1800.0
_PASSING: Final = 3000  # places where lines pass a layer; beyond that they go straight


@dataclass(frozen=True, slots=True)
class Line:
    """A way through the layers: each stretch (begin, end) crosses one, and between two of them is a curve.

    It leaves the first stretch at its end and enters the last one at its beginning. With a tip it ends at a
    box, else in another line that leads on to the same box. One that `is_back` goes against the direction.
    """

    stretches: tuple[tuple[Point, Point], ...]
    has_tip: bool
    is_back: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The boxes' centres and sizes, by node; everything lies within (0, 0) and (`width`, `height`)."""

    direction: Direction
    width: float
    height: float
    centres: list[Point]
    sizes: list[Point]
    lines: list[Line]


def layout(sizes: Sequence[Point], edges: Sequence[Edge]) -> Layout:
    """A place for boxes of these widths and heights, whatever the edges between them (indices) are.

    It goes down or to the right, whichever needs less room. Long lines to one box, or from one, share a lane.
    """
    layers = in_layers(len(sizes), edges)
    rows: list[list[int]] = [[] for _ in range(max(layers.of, default=-1) + 1)]
    for node, layer in enumerate(layers.of):
        rows[layer].append(node)
    return _Drawing(_direction(rows, sizes), sizes, rows, layers).layout()


def _direction(rows: list[list[int]], sizes: Sequence[Point]) -> Direction:
    def trouble(direction: Direction) -> float:
        across, along = (0, 1) if direction == "down" else (1, 0)
        breadth = max((sum(sizes[n][across] + _SIBLINGS[direction] for n in row) for row in rows), default=0)
        depth = sum(max(sizes[n][along] for n in row) + _LAYERS[direction] for row in rows)
        wide, high = (breadth, depth) if direction == "down" else (depth, breadth)
        return max(wide / _WIDE, high / _HIGH, 1)

    return "down" if trouble("down") <= trouble("right") else "right"


class _Drawing:
    """Coordinates are (across, along): across a layer, and along the way through the layers."""

    def __init__(
        self, direction: Direction, sizes: Sequence[Point], rows: list[list[int]], layers: Layers
    ) -> None:
        self._direction = direction
        self._count = len(sizes)  # nodes from here on are places where a line passes a layer
        self._layer = list(layers.of)
        self._lane = [-1] * self._count
        self._above: list[list[int]] = [[] for _ in sizes]
        self._below: list[list[int]] = [[] for _ in sizes]
        is_down = direction == "down"
        self._breadth = [size[0 if is_down else 1] for size in sizes]
        # All of a layer are of one length, so that no line has to go around a longer neighbour.
        self._length = [max(sizes[node][1 if is_down else 0] for node in row) for row in rows]
        self._backward = layers.backward
        self._chains = self._through(rows, layers.edges)
        self._rows = ordered(rows, self._above, self._below)
        self._across = lanes(self._rows, self._above, self._below, self._lane, self._gap)
        self._begin = self._depths()

    def _through(self, rows: list[list[int]], edges: Sequence[Edge]) -> list[list[int]]:
        """Each edge as its two nodes and, in between, a passing place in every layer that it crosses."""
        span = {(tail, head): self._layer[head] - self._layer[tail] for tail, head in edges}
        into = Counter(head for (_, head), layers in span.items() if layers > 1)
        out_of = Counter(tail for (tail, _), layers in span.items() if layers > 1)
        numbers: dict[object, int] = {}
        passing: dict[tuple[int, int], int] = {}  # by lane and layer
        joined: set[Edge] = set()
        chains = []
        # The short ones first: where there are too many, it is the longest that go straight.
        for edge in sorted(span, key=lambda edge: (span[edge], edge)):
            tail, head = edge
            shared: object = edge if edge in self._backward else head
            if edge not in self._backward and out_of[tail] > into[head]:
                shared = (tail,)
            lane = numbers.setdefault(shared, len(numbers))
            chain = [tail]
            if len(passing) + span[edge] <= _PASSING:
                for layer in range(self._layer[tail] + 1, self._layer[head]):
                    if (lane, layer) not in passing:
                        passing[lane, layer] = self._pass(lane, layer)
                        rows[layer].append(passing[lane, layer])
                    chain.append(passing[lane, layer])
            chain.append(head)
            chains.append(chain)
            if len(chain) == span[edge] + 1:
                for upper, lower in pairwise(chain):
                    if (upper, lower) not in joined:
                        joined.add((upper, lower))
                        self._below[upper].append(lower)
                        self._above[lower].append(upper)
        return chains

    def _pass(self, lane: int, layer: int) -> int:
        self._layer.append(layer)
        self._lane.append(lane)
        self._breadth.append(0.0)
        self._above.append([])
        self._below.append([])
        return len(self._layer) - 1

    def _gap(self, left: int, right: int) -> float:
        is_passed = left >= self._count or right >= self._count
        between = _LINES if is_passed else _SIBLINGS[self._direction]
        return (self._breadth[left] + self._breadth[right]) / 2 + between

    def _depths(self) -> list[float]:
        """Where each layer begins."""
        begins: list[float] = []
        at = 0.0
        for layer, row in enumerate(self._rows):
            begins.append(at)
            shifts = (abs(self._across[node] - self._across[to]) for node in row for to in self._below[node])
            # Lines that go far to the side need room, or they all lie on each other.
            least = _LAYERS[self._direction]
            at += self._length[layer] + min(max(least, 0.1 * max(shifts, default=0.0)), 2.5 * least)
        return begins

    # ------------------------------------------------------------ the result, turned the way it goes

    def layout(self) -> Layout:
        reach = [
            (at - breadth / 2, at + breadth / 2)
            for at, breadth in zip(self._across, self._breadth, strict=True)
        ]
        self._least = min((left for left, _ in reach), default=0.0)
        broad = max((right for _, right in reach), default=0.0) - self._least
        long = self._begin[-1] + self._length[-1] if self._begin else 0.0
        centres, sizes = [], []
        for node in range(self._count):
            begin, length = self._begin[self._layer[node]], self._length[self._layer[node]]
            centres.append(self._point(node, begin + length / 2))
            is_down = self._direction == "down"
            sizes.append((self._breadth[node], length) if is_down else (length, self._breadth[node]))
        width, height = (broad, long) if self._direction == "down" else (long, broad)
        return Layout(self._direction, width, height, centres, sizes, list(self._lines()))

    def _point(self, node: int, along: float) -> Point:
        across = self._across[node] - self._least
        return (across, along) if self._direction == "down" else (along, across)

    def _lines(self) -> Iterator[Line]:
        drawn: set[Edge] = set()
        for chain in self._chains:
            if (chain[0], chain[-1]) in self._backward:
                stretches = [(end, begin) for begin, end in map(self._stretch, reversed(chain))]
                yield Line(tuple(stretches), has_tip=True, is_back=True)
                continue
            run: list[int] = []
            for upper, lower in pairwise(chain):
                if (upper, lower) not in drawn:
                    drawn.add((upper, lower))
                    run = run or [upper]
                    run.append(lower)
                elif run:
                    yield self._line(run)
                    run = []
            if run:
                yield self._line(run)

    def _line(self, run: Sequence[int]) -> Line:
        return Line(tuple(map(self._stretch, run)), has_tip=run[-1] < self._count, is_back=False)

    def _stretch(self, node: int) -> tuple[Point, Point]:
        begin = self._begin[self._layer[node]]
        return self._point(node, begin), self._point(node, begin + self._length[self._layer[node]])
