"""The picture of a rule graph: XML that says what is there, whatever rules are called."""

from __future__ import annotations

import base64
import hashlib
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.graph_svg import CONTENT_POLICY, graph_svg
from runner.tasks import RuleCounts, RuleGraph, RuleNode
from tests.support.example_graph import EXAMPLE, PICTURE

SVG = "{http://www.w3.org/2000/svg}"


def graph_of(*nodes: RuleNode, edges: tuple[tuple[str, str], ...] = ()) -> RuleGraph:
    return RuleGraph(nodes, edges)


def root_of(graph: RuleGraph) -> ET.Element:
    return ET.fromstring(graph_svg(graph))


def texts(root: ET.Element, name: str) -> list[str]:
    return [element.text or "" for element in root.iter(SVG + "text") if element.get("class") == name]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6, unique=True))
def test_whatever_rules_are_called_it_is_well_formed_and_their_names_are_text(names: list[str]) -> None:
    edges = tuple((names[0], name) for name in names)
    root = root_of(RuleGraph(tuple(RuleNode(name, RuleCounts(pending=1)) for name in names), edges))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "marker", "path", "rect", "g", "text")
    }
    assert len(texts(root, "name")) == len(names)


def test_markup_in_a_name_stays_text_and_what_turns_it_around_is_shown() -> None:
    root = root_of(graph_of(RuleNode("</text><script>a&b</script>"[:30], RuleCounts(pending=1))))
    assert texts(root, "name") == ["</text><script>a&b</script>"]
    assert texts(root_of(graph_of(RuleNode("a\u202eb\x00\x1b", RuleCounts()))), "name") == [
        "a\ufffdb\ufffd\ufffd"
    ]


def test_a_long_name_is_cut_and_told_whole_by_its_title() -> None:
    name = "a_rule_" * 10
    root = root_of(graph_of(RuleNode(name, RuleCounts(pending=1))))
    (shown,) = texts(root, "name")
    assert (len(shown), shown[-1]) == (32, "…")
    assert any(name in (title.text or "") for title in root.iter(SVG + "title"))


@pytest.mark.parametrize(
    ("counts", "status", "told"),
    [
        (RuleCounts(), "pending", "no tasks yet"),
        (RuleCounts(pending=7, completed=3), "pending", "pending · 3/10"),
        (RuleCounts(running=2, completed=3, up_to_date=1, pending=4), "running", "2 running · 4/10"),
        (RuleCounts(failed=1, running=9), "failed", "1 failed · 0/10"),
        (RuleCounts(cancelled=4, completed=6), "cancelled", "4 cancelled · 6/10"),
        (RuleCounts(completed=9, up_to_date=1), "completed", "completed · 10/10"),
        (RuleCounts(up_to_date=1200), "up_to_date", "up to date · 1,200/1,200"),
    ],
)
def test_each_status_has_its_word_its_count_and_its_icon(counts: RuleCounts, status: str, told: str) -> None:
    root = root_of(graph_of(RuleNode("r", counts)))
    assert texts(root, "told") == [told]
    (box,) = (group for group in root.iter(SVG + "g") if group.get("class") == status)
    assert [path for path in box.iter(SVG + "path") if path.get("class") == "icon"]
    partly = 0 < counts.completed + counts.up_to_date < counts.total
    assert partly == bool([path for path in box.iter(SVG + "path") if path.get("class") == "done"])


def test_icons_and_colours_of_statuses_all_differ() -> None:
    statuses = ("pending", "running", "completed", "failed", "cancelled", "up_to_date")
    graph = graph_of(*(RuleNode(status, RuleCounts(**{status: 1})) for status in statuses))
    icons = {path.get("d") for path in root_of(graph).iter(SVG + "path") if path.get("class") == "icon"}
    assert len(icons) == len(statuses)


@pytest.mark.parametrize("rules", [0, 601])
def test_what_cannot_be_drawn_is_said_in_a_small_picture(rules: int) -> None:
    graph = graph_of(*(RuleNode(f"r{n}", RuleCounts(pending=1)) for n in range(rules)))
    root = root_of(graph)
    assert len(texts(root, "name")) == 1
    assert ("601 rules" in texts(root, "told")[0]) == (rules > 0)
    assert float(root.get("height") or 0) < 100


def test_it_says_what_it_is_to_those_who_cannot_see_it() -> None:
    root = root_of(EXAMPLE)
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    told = [named[name] for name in (root.get("aria-labelledby") or "").split()]
    assert told == ["Rule graph", "13 rules, 113 of 198 tasks done"]
    titles = [title.text for title in root.iter(SVG + "title")]
    assert "rule fastqc: 23 completed, 1 failed" in titles
    assert "checkpoint scatter: 1 completed" in titles


def test_its_policy_allows_its_own_style_and_nothing_else() -> None:
    style = next(root_of(EXAMPLE).iter(SVG + "style")).text or ""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert CONTENT_POLICY.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
    assert "prefers-color-scheme:dark" in style
    assert "style=" not in graph_svg(EXAMPLE)


def test_the_picture_in_the_documentation_is_this_one() -> None:
    assert PICTURE.read_text() == graph_svg(EXAMPLE), "run: python -m tests.support.example_graph"
