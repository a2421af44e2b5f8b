"""The list of guards holds: each stands in the source once, and the tests that are to miss it exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.__main__ import verdict_of
from tests.mutants.guards import ROOT, Exemption, StaleGuard, exemptions, guards, mutated, span
from tests.mutants.table import BEGIN, END, NoPlace, put_into, table
from tests.mutants.trial import Result

GUARDS = guards()
PROMISES = {f"P{n}" for n in range(1, 15)}
# What makes a write durable, whole, exclusive or somebody's own: by the names the source calls them.
GUARDING = re.compile(
    r"\bos\.(fsync|fdatasync|sync|rename|replace|link|posix_fallocate)\(|\bO_EXCL\b"
    r"|\bfcntl\.(lockf|flock)\(|\bF_(OFD_)?SETLK|\bF_GETLK\b|BEGIN (IMMEDIATE|EXCLUSIVE)|synchronous ="
    r"|journal_mode = WAL|\bversion\b.* (==|!=) |\bprctl\(_PR_|\bSIG_BLOCK\b"
)


@cache
def text_of(file: str) -> str:
    return (ROOT / file).read_text()


def test_every_guard_stands_in_the_source_once_and_leaves_a_program_without_it() -> None:
    stale = []
    for guard in GUARDS:
        try:
            without = mutated(guard, ROOT)
        except StaleGuard as error:
            stale.append(str(error))
            continue
        for file, text in without.items():
            assert text != text_of(file)
            compile(text, f"{file} without {guard.id}", "exec")
    assert stale == []


def test_every_guard_has_an_id_of_its_own_a_promise_and_a_reason() -> None:
    ids = [guard.id for guard in GUARDS]
    assert sorted(set(ids)) == sorted(ids)
    assert {guard.promise for guard in GUARDS} <= PROMISES
    assert all(re.fullmatch(r"[a-z][a-z0-9-]+", name) for name in ids)
    assert all(guard.what and guard.why.endswith(".") for guard in GUARDS)


def test_the_tests_that_are_to_miss_them_exist() -> None:
    assert all(guard.tests for guard in GUARDS)
    named = {test for guard in GUARDS for test in guard.tests}
    assert sorted(test for test in named if not exists(test)) == []


def exists(test: str) -> bool:
    file, _, name = test.partition("[")[0].partition("::")
    return (ROOT / file).is_file() and name in names_in(file)


@cache
def names_in(file: str) -> set[str]:
    """As pytest names them: a class may have its tests from another one of the file."""
    body = ast.parse(text_of(file)).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    in_classes = {name for each in classes for name in _functions(each.body)}
    return _functions(body) | {f"{each.name}::{name}" for each in classes for name in in_classes}


def _functions(body: list[ast.stmt]) -> set[str]:
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_line_of_the_runner_that_guards_something_is_in_the_list() -> None:
    covered = {(edit.file, line) for guard in GUARDS for edit in guard.edits for line in span(edit, ROOT)}
    missing = []
    for path in sorted((ROOT / "runner").rglob("*.py")):
        file = str(path.relative_to(ROOT))
        for number in code_lines(file):
            line = text_of(file).splitlines()[number - 1]
            if GUARDING.search(line) and (file, number) not in covered and not is_exempt(file, line):
                missing.append(f"{file}:{number}: {line.strip()}")
    assert missing == []


def code_lines(file: str) -> list[int]:
    """The lines that are neither comment nor documentation."""
    documentation = {
        line
        for node in ast.walk(ast.parse(text_of(file)))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.end_lineno
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = text_of(file).splitlines()
    return [
        number
        for number, line in enumerate(lines, 1)
        if number not in documentation and not line.lstrip().startswith("#")
    ]


def is_exempt(file: str, line: str) -> bool:
    return any(each.file == file and each.text in line for each in exemptions())


@pytest.mark.parametrize("exemption", exemptions(), ids=lambda each: f"{each.file} {each.text}")
def test_an_exemption_is_still_needed(exemption: Exemption) -> None:
    lines = [line for line in text_of(exemption.file).splitlines() if exemption.text in line]
    assert any(GUARDING.search(line) for line in lines)


@pytest.mark.parametrize(
    ("result", "caught", "found"),
    [
        (Result(failed=["tests/a.py::test_b[1]"], passed=["x"]), True, "`tests/a.py::test_b`"),
        (
            Result(failed=["tests/a.py::test_b"], hung="tests/a.py::test_b"),
            True,
            "`tests/a.py::test_b` (hangs)",
        ),
        (Result(failed=["tests/a.py::test_b"], hung="tests/a.py::test_c"), True, "`tests/a.py::test_b`"),
        (Result(hung="tests/a.py::test_b[1]"), True, "`tests/a.py::test_b` (hangs)"),
        (Result(passed=["x"], skipped={"y": "no"}), False, "**nothing: it is not missed**"),
        (Result(skipped={"y": "needs root"}), False, "**not found out**: needs root"),
        (
            Result(failed=["x"], trouble="it tested another copy"),
            False,
            "**not found out**: it tested another copy",
        ),
    ],
)
def test_a_guard_is_caught_only_by_a_test_that_fails_or_hangs(
    result: Result, found: str, *, caught: bool
) -> None:
    verdict = verdict_of(GUARDS[0], result)
    assert (verdict.caught, verdict.found) == (caught, found)


def test_the_table_takes_its_place_in_a_page_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    content = table([(GUARDS[0], "`tests/a.py::test_b`", 1.25)])
    put_into(page, content)
    put_into(page, content)
    assert page.read_text() == f"above\n{BEGIN}\n{content}{END}\nbelow\n"
    assert "| `tests/a.py::test_b` | 1.2 |" in content
    page.write_text("nothing here")
    with pytest.raises(NoPlace):
        put_into(page, content)
