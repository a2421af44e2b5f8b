"""Nothing that comes from a service is a command to the terminal."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakeline.commands.outputs import place_of
from snakeline.commands.parameters import NotUnderstood
from snakeline.commands.plain import ColouredLines, coloured, one_line, plain

ANYTHING = st.text(max_size=40)
LOGS = st.lists(
    st.sampled_from(
        ["\x1b[31m", "\x1b[0m", "\x1b[2J", "\x1b]0;t\x07", "a", "\n", "\x1b", "[", "1;32m", "\x9b2J", "m"]
    ),
    max_size=12,
).map("".join)


def is_control(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or "\u202a" <= sign <= "\u202e"


@given(ANYTHING)
def test_no_control_gets_through_but_tab_and_newline(text: str) -> None:
    assert not [sign for sign in plain(text) if is_control(sign) and sign not in "\t\n"]
    assert not [sign for sign in one_line(text) if is_control(sign)]


def test_what_is_taken_out_is_shown() -> None:
    assert plain("a\x1b[2Jb\x9b\u202e\r") == "a\\x1b[2Jb\\x9b\\u202e\\x0d"
    assert one_line("a\nb\t c") == "a b c"
    assert plain("grün 漢字 ✓") == "grün 漢字 ✓"


@given(LOGS)
def test_of_a_log_colours_alone_get_through(text: str) -> None:
    rest = re.sub("\x1b\\[[0-9;:]*m", "", coloured(text))
    assert not [sign for sign in rest if is_control(sign) and sign not in "\t\n"]


@given(LOGS, st.lists(st.integers(0, 40), max_size=4))
def test_it_does_not_matter_where_a_log_is_cut_into_pieces(text: str, cuts: list[int]) -> None:
    lines = ColouredLines()
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(lines.feed(text[a:b]) for a, b in pairwise(edges))
    assert shown + lines.end() == coloured(text) + "\x1b[0m"


@pytest.mark.parametrize("path", ["../evil", "a/../../evil", "/etc/passwd", "a//b", "", "a/.", "results/"])
def test_no_file_is_saved_outside_of_the_folder(path: str) -> None:
    with pytest.raises(NotUnderstood):
        place_of("here", path)


def test_a_file_is_saved_at_its_own_path_without_controls() -> None:
    assert place_of("here", "results/a b.txt") == "here/results/a b.txt"
    assert place_of("here", "a\x1b[31m") == "here/a\\x1b[31m"
