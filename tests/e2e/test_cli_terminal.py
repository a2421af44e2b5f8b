"""The command on a terminal: the live view, and nothing from a job that the terminal would obey."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.server import service_environment
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server import LiveServer

OTHER_SCREEN, OWN_SCREEN, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"
COLOURS = re.compile(rb"\x1b\[[0-9;:]*m")


def was_restored(terminal: Terminal) -> bool:
    raw = terminal.raw
    return 0 <= raw.find(OTHER_SCREEN) < raw.rfind(OWN_SCREEN) and raw.rfind(CURSOR) > raw.rfind(b"\x1b[?25l")


def held(server: LiveServer, tmp_path: Path, **mock: object) -> tuple[str, Path]:
    gate = tmp_path / "gate"
    job = server.client.submit(name="watched", parameters={"mock": {"hold": str(gate), **mock}})
    server.client.wait_for(job["id"], "running")
    return job["id"], gate


def test_a_watched_job_is_seen_rule_by_rule_to_its_end(server: LiveServer, tmp_path: Path) -> None:
    job_id, gate = held(server, tmp_path, fail_rule="report")
    with Terminal("watch", job_id, settings={"URL": server.url}) as terminal:
        shown = terminal.see(lambda text: "○ report" in text)
        assert shown.startswith("● running  watched\n")
        assert len(re.findall(r"[░▒█]{8,}  0/1", shown)) >= 4
        gate.write_text("go")
        code = terminal.end()
        last = terminal.text
    assert code == 1
    assert was_restored(terminal)
    # What stays: the failed rule first, then how it ended.
    assert re.search(r"✗ report .*0/1, 1 failed\n✓ ", last) or re.search(
        r"✗ report .*0/1, 1 failed\n⊘ all", last
    )
    assert "✗ failed (exited_nonzero, exit code 1" in last
    assert "Rule report failed" in last


def test_a_view_has_no_more_lines_than_the_terminal_also_when_that_shrinks(
    server: LiveServer, tmp_path: Path
) -> None:
    job_id, gate = held(server, tmp_path)
    with Terminal("watch", job_id, settings={"URL": server.url}, columns=90, lines=20) as terminal:
        terminal.see(lambda text: "○ all" in text)
        terminal.resize(40, 9)
        shown = terminal.see(lambda text: "more rules" in text)
        assert shown.startswith("● running  watched\n")
        gate.write_text("go")
        assert terminal.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_view_and_leaves_terminal_and_job_as_they_were(
    server: LiveServer, tmp_path: Path, number: int, code: int
) -> None:
    job_id, gate = held(server, tmp_path)
    with Terminal("watch", job_id, settings={"URL": server.url}) as terminal:
        terminal.see(lambda text: "○ all" in text)
        terminal.process.send_signal(number)
        assert terminal.end() == code
    assert was_restored(terminal)
    assert b"Traceback" not in terminal.raw
    assert server.client.job(job_id)["status"] == "running"
    gate.write_text("go")


def test_all_that_wait_and_run_are_watched_together(server: LiveServer, tmp_path: Path) -> None:
    job_id, gate = held(server, tmp_path)
    with Terminal("watch", settings={"URL": server.url}) as terminal:
        shown = terminal.see(lambda text: job_id[:18] in text and "watched" in text)
        assert re.match(r"\d+ running, \d+ pending", shown)
        gate.write_text("go")
        terminal.see(lambda text: job_id[:18] not in text)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert was_restored(terminal)


def test_into_a_pipe_a_line_comes_for_each_change(server: LiveServer) -> None:
    job_id = server.client.submit(parameters={"mock": {"seconds": 0.2}})["id"]
    done = subprocess.run(
        [sys.executable, "-m", "snakeline", "watch", job_id],
        env=service_environment({"URL": server.url}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == len(set(lines)) >= 1
    assert lines[-1].startswith("completed attempt 1: 5/5 tasks")
    assert done.stderr.startswith("✓ completed")


def test_of_a_log_only_colours_reach_a_terminal_and_all_of_it_when_asked(server: LiveServer) -> None:
    nasty = "a \x1b[31mred\x1b[0m \x1b[2J \x1b]0;title\x07 \u202e \u009b2J end"
    mock = {"fail_rule": "check", "stderr_text": nasty}
    job_id = server.client.run(workflow="failing", parameters={"mock": mock})["id"]
    assert b"\x1b[2J" in server.client.get(f"/jobs/{job_id}/logs").content
    for arguments in (["logs", job_id], ["logs", "-f", job_id]):
        with Terminal(*arguments, settings={"URL": server.url}, columns=200, lines=60) as terminal:
            assert terminal.end() == 0
        assert b"\x1b[31mred\x1b[0m \\x1b[2J \\x1b]0;title\\x07 \\u202e \\x9b2J end" in terminal.raw
        assert b"\x1b" not in COLOURS.sub(b"", terminal.raw)
    (server.data_dir / "jobs" / job_id / "work" / "nasty.txt").write_text(nasty)
    get = ("outputs", "get", job_id, "nasty.txt", "--to", "-")
    with Terminal(*get, settings={"URL": server.url}, columns=200) as terminal:
        assert terminal.end() == 0
    assert terminal.raw.startswith(b"a \x1b[31mred\x1b[0m \\x1b[2J \\x1b]0;title\\x07")
    with Terminal("logs", job_id, "--raw", settings={"URL": server.url}) as terminal:
        assert terminal.end() == 0
    assert b"\x1b[2J \x1b]0;title\x07" in terminal.raw


def test_names_and_errors_are_no_commands_to_a_terminal(server: LiveServer) -> None:
    mock = {"fail_rule": "check", "stderr_text": "evil \x1b[2J\x1b]0;title\x07"}
    job_id = server.client.run(workflow="failing", name="[red]a[/red] \u202eevil", parameters={"mock": mock})[
        "id"
    ]
    with Terminal("show", job_id, settings={"URL": server.url}, columns=120, lines=60) as terminal:
        assert terminal.end() == 0
    assert "[red]a[/red] \\u202eevil" in terminal.text
    assert b"\x1b" not in COLOURS.sub(b"", terminal.raw)
    with Terminal("list", "-n", "1", settings={"URL": server.url}, columns=100) as terminal:
        assert terminal.end() == 0
    assert job_id[:18] in terminal.text
    assert all(len(line) <= 100 for line in terminal.text.splitlines())
    assert "\u202e" not in terminal.raw.decode()
    assert "[red]a[/red] \\u202e" in terminal.text


def test_the_changes_of_all_jobs_are_objects_on_lines(server: LiveServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "snakeline", "watch", "--json"],
        env=service_environment({"URL": server.url}),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            # Until the stream has begun, jobs come and go unseen.
            while not select.select([process.stdout], [], [], 0.2)[0]:
                server.client.run()
            change = json.loads(process.stdout.readline())
        finally:
            process.kill()
    assert change["kind"] in ("submitted", "claimed", "progressed", "ended")
    assert change["job"]["status"]
