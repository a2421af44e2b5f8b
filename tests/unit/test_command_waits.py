"""What is said while the command waits for a service or a job, and when it is not waited for to the end."""

from __future__ import annotations

import sys

import pytest
import typer

from snakeline.client import Unreachable, Waiting
from snakeline.commands.following import may_be_left
from snakeline.commands.waits import Waits

BUSY = "429 Too many \x1b[2Jjobs"


def go_through(waits: Waits, *pauses: tuple[float, int]) -> None:
    for pause_s, number in pauses:
        waits(Waiting(BUSY, pause_s, number))
        waits(None)


def test_in_a_pipe_each_trouble_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    go_through(Waits(), (4.2, 2), (8, 3), (8, 4), (2, 2))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "429 Too many \\x1b[2Jjobs: trying again in 4 s (try 2)",
        "429 Too many \\x1b[2Jjobs: trying again in 2 s (try 2)",
    ]


def test_a_trouble_that_is_over_at_once_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    go_through(Waits(), (0.3, 2))
    go_through(Waits(quiet=True), (9, 2), (9, 3))
    assert capsys.readouterr().err == ""
    go_through(Waits(), (0.3, 2), (0.6, 3), (1.2, 4))
    assert capsys.readouterr().err.count("\n") == 1


def test_on_a_terminal_it_is_gone_when_the_pause_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    go_through(Waits(), (4, 2), (4, 3))
    told = capsys.readouterr().err
    assert "\n" not in told
    assert told == "\r429 Too many \\x1b[2\x1b[K\r\x1b[K" * 2
    go_through(Waits(is_transient=False), (4, 2), (4, 3))
    monkeypatch.setenv("TERM", "dumb")
    go_through(Waits(), (4, 2), (4, 3))
    told = capsys.readouterr().err
    assert told.count("\n") == 2
    assert "\x1b" not in told


def test_a_view_says_it_itself(capsys: pytest.CaptureFixture[str]) -> None:
    waits, seen = Waits(), list[str]()
    waits.elsewhere = seen.append
    go_through(waits, (4, 2))
    assert [text[:3] for text in seen] == ["429", ""]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("url", "profile", "at"),
    [
        (None, None, ""),
        ("http://lab/a b", None, " --url 'http://lab/a b'"),
        (None, "the lab", " --profile 'the lab'"),
    ],
)
def test_who_leaves_a_job_is_told_how_to_come_back_to_it(
    capsys: pytest.CaptureFixture[str], url: str | None, profile: str | None, at: str
) -> None:
    for quiet in (False, True):
        with pytest.raises(KeyboardInterrupt), may_be_left("7", url=url, profile=profile, quiet=quiet):
            raise KeyboardInterrupt
    with pytest.raises(Unreachable), may_be_left("7", url=url, profile=profile):
        raise Unreachable("it broke")
    with pytest.raises(typer.Exit), may_be_left("7", url=url, profile=profile):
        raise typer.Exit(1)
    told = f"Job 7 goes on: `snakeline watch 7{at}` comes back to it, `snakeline cancel 7{at}` ends it.\n"
    assert capsys.readouterr().err == told * 2
