"""The names of log events are a contract: the table in docs/logging.md and the source say the same."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for package in ("api", "runner", "snakeline") for path in sorted((ROOT / package).rglob("*.py"))
]
PAGE = (ROOT / "docs/logging.md").read_text()
LOG = "_log"
LEVELS = {"exception": "error"}
UNLISTED = {"exc_info", "**"}
OF_A_JOB = {"job", "job_id", "handle", "active"}


@dataclass
class Told:
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, set[str]]]:
    """Every call of the module's logger, with the levels it may have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            choices = [node.func]
            if isinstance(node.func, ast.IfExp):
                choices = [each for each in ast.walk(node.func) if isinstance(each, ast.Attribute)]
            levels = {
                LEVELS.get(each.attr, each.attr)
                for each in choices
                if isinstance(each, ast.Attribute)
                and isinstance(each.value, ast.Name)
                and each.value.id == LOG
            }
            if levels:
                yield node, levels


def in_source() -> dict[str, Told]:
    found: dict[str, Told] = {}
    for path in SOURCES:
        for call, levels in calls(ast.parse(path.read_text())):
            name = call.args[0]
            assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: the event's name is made up"
            told = found.setdefault(str(name.value), Told())
            told.levels |= levels
            told.fields |= {keyword.arg or "**" for keyword in call.keywords} - UNLISTED
    return found


def in_page() -> dict[str, Told]:
    rows = re.findall(r"^\| `([\w.]+)` \| ([\w, ]+) \| ([^|]*) \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    return {
        name: Told(set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields)))
        for name, levels, fields in rows
    }


def test_the_page_lists_every_event_with_its_levels_and_fields_and_no_other() -> None:
    source, page = in_source(), in_page()
    assert len(source) > 60
    assert {name: page.get(name) for name in source if page.get(name) != source[name]} == {}
    assert set(page) == set(source)


def test_an_event_is_a_name_and_no_sentence() -> None:
    assert [name for name in in_source() if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", name)] == []


def test_a_line_that_is_about_a_job_says_which() -> None:
    missing = []
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            arguments = {each.arg for each in (*function.args.args, *function.args.kwonlyargs)}
            if not arguments & OF_A_JOB or path.parent.name == "routes":
                continue
            for call, _ in calls(function):
                if "job_id" not in {keyword.arg for keyword in call.keywords}:
                    missing.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert missing == []


def test_nothing_of_ours_logs_past_the_structured_log() -> None:
    past = re.compile(r"logging\.getLogger\(__name__\)|logging\.(debug|info|warning|error)\(")
    ours = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "snakeline"]
    assert [str(p.relative_to(ROOT)) for p in ours if past.search(p.read_text())] == []


def test_what_alarms_look_for_is_there() -> None:
    texts = [path.read_text() for path in sorted((ROOT / "deploy").rglob("*.y*ml"))]
    wanted = {name for text in texts for name in re.findall(r'\$\.event = "([\w.]+)"', text)}
    assert wanted
    assert wanted - set(in_source()) == set()
