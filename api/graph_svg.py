"""A rule graph as a picture: SVG that a browser shows by itself or as an image, in light and in dark."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from html import escape
from typing import TYPE_CHECKING, Final

from api.graph_layout import layout
from api.task_documents import rule_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.graph_layout import Layout, Line, Point
    from runner.tasks import RuleGraph, RuleNode

SVG: Final = "image/svg+xml"

_MOST_RULES: Final = 600
_MOST_EDGES: Final = 6000
_NAME_COLUMNS: Final = 32
_TITLE_COLUMNS: Final = 300
_MARGIN: Final = 16.0
_HEIGHT: Final = 46.0
_ICON_ROOM: Final = 34.0
_COLUMN: Final = 7.3  # of a monospaced letter of 12 px, in any of the usual fonts at most
_SMALL_COLUMN: Final = 6.2

_ICONS: Final = {
    "pending": "M4.5 0a4.5 4.5 0 1 1-9 0a4.5 4.5 0 1 1 9 0z",
    "running": "M-3.5-5L5.5 0L-3.5 5z",
    "completed": "M-5 .5L-1.5 4.5L5.5-4.5",
    "failed": "M-4.5-4.5L4.5 4.5M4.5-4.5L-4.5 4.5",
    "cancelled": "M5 0a5 5 0 1 1-10 0a5 5 0 1 1 10 0zM-3.5-3.5L3.5 3.5",
    "up_to_date": "M-5-2.5H5M-5 2.5H5",
}
# Each with the colours of its line and its ground.
_LIGHT: Final = {
    "pending": ("#6e7781", "#f6f8fa"),
    "running": ("#0969da", "#ddf4ff"),
    "completed": ("#1a7f37", "#e6f9ea"),
    "failed": ("#cf222e", "#ffebe9"),
    "cancelled": ("#9a6700", "#fff8c5"),
    "up_to_date": ("#6e7781", "#ffffff"),
}
_DARK: Final = {
    "pending": ("#8b949e", "#161b22"),
    "running": ("#58a6ff", "#11213b"),
    "completed": ("#3fb950", "#11271a"),
    "failed": ("#f85149", "#30171a"),
    "cancelled": ("#d29922", "#2b2410"),
    "up_to_date": ("#8b949e", "#0d1117"),
}


def _colours(paper: str, text: str, small: str, edge: str, of: dict[str, tuple[str, str]]) -> str:
    rules = [f".paper{{fill:{paper}}}.name{{fill:{text}}}.told{{fill:{small}}}"]
    rules.append(f".edge{{stroke:{edge}}}.tip{{fill:{edge}}}")
    for status, (line, ground) in of.items():
        rules.append(f".{status} .box{{stroke:{line};fill:{ground}}}.{status} .icon{{stroke:{line}}}")
        rules.append(f".{status} .done{{stroke:{line}}}.{status} .inner{{stroke:{line}}}")
    return "".join(rules)


_STYLE: Final = (
    ":root{color-scheme:light dark}"
    ".name{font:600 12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    ".told{font:11px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    ".box{stroke-width:1.4}.inner{fill:none;stroke-width:1}.up_to_date .box{stroke-dasharray:4 3}"
    ".icon{fill:none;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}"
    ".edge{fill:none;stroke-width:1.3}.back{stroke-dasharray:5 4}"
    ".done{fill:none;stroke-width:2.5;stroke-linecap:round}"
    + _colours("#ffffff", "#1f2328", "#57606a", "#a3acb5", _LIGHT)
    + "@media(prefers-color-scheme:dark){"
    + _colours("#0d1117", "#e6edf3", "#9ea7b1", "#5b646e", _DARK)
    + "}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# What the picture may do where a browser opens it as a page of its own: nothing, in its own colours.
CONTENT_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def graph_svg(graph: RuleGraph) -> str:
    """The picture. Of a graph too large to look at it says only that, and how large it is.

    Rules have the names that a job gave them: they are text here, whatever they are.
    """
    total = sum(node.counts.total for node in graph.nodes)
    done = sum(node.counts.completed + node.counts.up_to_date for node in graph.nodes)
    rules = f"{len(graph.nodes):,} rule{'s' if len(graph.nodes) != 1 else ''}"
    told = f"{rules}, {done:,} of {total:,} tasks done"
    if not graph.nodes:
        return _notice("No rules are known yet", "This run has told of none so far.")
    if len(graph.nodes) > _MOST_RULES or len(graph.edges) > _MOST_EDGES:
        return _notice(
            "This graph is too large for a picture", f"{told}. They are all in the JSON of this graph."
        )
    index = {node.rule: number for number, node in enumerate(graph.nodes)}
    sizes = [(_width(node), _HEIGHT) for node in graph.nodes]
    placed = layout(sizes, [(index[tail], index[head]) for tail, head in graph.edges])
    body = [*_edges(placed)]
    for node, centre, size in zip(graph.nodes, placed.centres, placed.sizes, strict=True):
        body.extend(_box(node, centre, size))
    return _document("Rule graph", told, placed.width, placed.height, body)


def _document(title: str, description: str, width: float, height: float, body: list[str]) -> str:
    wide, high = _n(width + 2 * _MARGIN), _n(height + 2 * _MARGIN)
    shift = _n(_MARGIN)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" role="img" aria-labelledby="snakeline-title snakeline-told">'
        f'<title id="snakeline-title">{title}</title><desc id="snakeline-told">{description}</desc>'
        f'<style>{_STYLE}</style><defs><marker id="snakeline-tip" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path class="tip" d="M0 .8L7.5 4L0 7.2z"/></marker>'
        f'</defs><rect class="paper" width="{wide}" height="{high}" rx="6"/>'
        f'<g transform="translate({shift} {shift})">\n' + "\n".join(body) + "\n</g></svg>\n"
    )


def _notice(headline: str, detail: str) -> str:
    width = max(len(headline) * _COLUMN, len(detail) * _SMALL_COLUMN)
    body = [
        f'<text class="name" x="0" y="16">{headline}</text><text class="told" x="0" y="36">{detail}</text>'
    ]
    return _document("Rule graph", f"{headline}. {detail}", width, 44, body)


# ---------------------------------------------------------------- boxes


def _shown(name: str, columns: int) -> str:
    """The name as plain text: nothing that would end the document or turn it around; cut at its end."""
    kept: list[str] = []
    used = 0
    for each in name[: columns + 1]:
        used += 2 if unicodedata.east_asian_width(each) in "WF" else 1
        if used > columns:
            kept[-1:] = "…"
            break
        kept.append("\ufffd" if unicodedata.category(each)[0] == "C" else each)
    return escape("".join(kept))


def _columns(name: str) -> int:
    return min(sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in name), _NAME_COLUMNS)


def _width(node: RuleNode) -> float:
    name = _columns(node.rule[: _NAME_COLUMNS + 1]) * _COLUMN
    return max(_ICON_ROOM + max(name, len(_told(node)) * _SMALL_COLUMN) + 14, 112.0)


def _told(node: RuleNode) -> str:
    """The status in a word, and how many tasks of how many."""
    counts, status = node.counts, rule_status(node.counts)
    if not counts.total:
        return "no tasks yet"
    done = f"{counts.completed + counts.up_to_date:,}/{counts.total:,}"
    match status:
        case "up_to_date":
            return f"up to date · {done}"
        case "completed":
            return f"completed · {done}"
        case "pending":
            return f"pending · {done}"
        case _:
            number: int = getattr(counts, status)
            return f"{number:,} {status} · {done}"


def _box(node: RuleNode, centre: Point, size: Point) -> Iterator[str]:
    counts, status = node.counts, rule_status(node.counts)
    (x, y), (width, height) = (centre[0] - size[0] / 2, centre[1] - size[1] / 2), size
    parts = [
        f"{number:,} {name.replace('_', ' ')}"
        for name in ("completed", "running", "failed", "pending", "cancelled", "up_to_date")
        if (number := getattr(counts, name))
    ]
    kind = "checkpoint" if node.is_checkpoint else "rule"
    title = f"{kind} {_shown(node.rule, _TITLE_COLUMNS)}: {', '.join(parts) or 'no tasks yet'}"
    yield (
        f'<g class="{status}" transform="translate({_n(x)} {_n(y)})"><title>{title}</title>'
        f'<rect class="box" width="{_n(width)}" height="{_n(height)}" rx="7"/>'
    )
    if node.is_checkpoint:
        yield (
            f'<rect class="inner" x="3" y="3" width="{_n(width - 6)}" height="{_n(height - 6)}" rx="4.5"/>'
        )
    yield (
        f'<path class="icon" transform="translate(18 {_n(height / 2)})" d="{_ICONS[status]}"/>'
        f'<text class="name" x="{_n(_ICON_ROOM)}" y="20">{_shown(node.rule, _NAME_COLUMNS)}</text>'
        f'<text class="told" x="{_n(_ICON_ROOM)}" y="36">{_told(node)}</text>'
    )
    done = counts.completed + counts.up_to_date
    if 0 < done < counts.total:
        length = (width - 14) * done / counts.total
        yield f'<path class="done" d="M7 {_n(height - 1)}h{_n(length)}"/>'
    yield "</g>"


# ---------------------------------------------------------------- edges


def _edges(placed: Layout) -> Iterator[str]:
    for line in placed.lines:
        kind = "edge back" if line.is_back else "edge"
        tip = ' marker-end="url(#snakeline-tip)"' if line.has_tip else ""
        yield f'<path class="{kind}" d="{_way(line, placed)}"{tip}/>'


def _way(line: Line, placed: Layout) -> str:
    """From where it leaves its first stretch to where it enters its last one."""
    is_down = placed.direction == "down"
    begin = line.stretches[0][1]
    way = [f"M{_p(begin)}"]
    for number, (enter, leave) in enumerate(line.stretches[1:], 2):
        # The curve leaves and arrives along the way through the layers.
        if is_down:
            middle = (begin[1] + enter[1]) / 2
            bend = (begin[0], middle), (enter[0], middle)
        else:
            middle = (begin[0] + enter[0]) / 2
            bend = (middle, begin[1]), (middle, enter[1])
        way.append(f"C{_p(bend[0])} {_p(bend[1])} {_p(enter)}")
        if number < len(line.stretches):
            way.append(f"L{_p(leave)}")
        begin = leave
    return "".join(way)


def _p(point: Point) -> str:
    return f"{_n(point[0])} {_n(point[1])}"


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
