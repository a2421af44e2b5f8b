"""What a command writes where it cannot be written, or where nobody reads it."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
import typer

from snakeline.commands.session import note, stop
from snakeline.commands.streams import is_screen, prepare_output, readers_may_leave
from snakeline.commands.words import ICONS

SAYING = (
    "from snakeline.commands.streams import *\nprepare_output()\nwith readers_may_leave():\n    print({!r})"
)


def said(text: str, **environment: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", SAYING.format(text)],
        env={**os.environ, **environment},  # noqa: TID251 - handed on to a child
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_terminal_of_ascii_gets_signs_of_ascii_each_as_wide(unbuffered: str) -> None:
    signs = "".join(ICONS.values()) + "█▒░…"
    shown = said(f"{signs}ü", PYTHONIOENCODING="ascii", PYTHONUNBUFFERED=unbuffered)
    assert shown == b"o*+x-=#=.~\\xfc\n"
    assert len(shown.split(b"\\")[0]) == len(signs)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_any_other_gets_what_it_can_show(unbuffered: str) -> None:
    assert (
        said("✓ ü \udc80", PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED=unbuffered) == "✓ ü \\udc80\n".encode()
    )
    assert said("✓ ü", PYTHONIOENCODING="latin-1", PYTHONUNBUFFERED=unbuffered) == b"+ \xfc\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nothing_is_said_when_nobody_reads_on(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-c", SAYING.format("all")],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},  # noqa: TID251 - handed on to a child
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (141, b"")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_the_caller_has_closed_is_no_trouble(
    closed: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None if name == closed else io.StringIO())
    prepare_output()
    request.addfinalizer(getattr(sys, closed).close)
    note("said")
    assert not is_screen(sys.stderr)
    with pytest.raises(typer.Exit), readers_may_leave():
        stop("no service", 69)
