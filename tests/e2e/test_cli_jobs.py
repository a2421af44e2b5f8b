"""The command, as people use it: submit, look, wait, fetch, end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from snakeline.cli import app
from snakeline.commands.session import _columns_with_room
from tests.support.scripted_service import Step, scripted_service
from tests.support.server import service_environment
from tests.support.terminal import INTERRUPTIBLE
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    from tests.support.server import LiveServer

    Command = Callable[..., Result]

QUICK = 'mock={"seconds": 0}'


@pytest.fixture
def command(server: LiveServer, tmp_path: Path) -> Command:
    def run(*arguments: str, **environ: str) -> Result:
        """The command in this process, asking the service, with a folder for its configuration."""
        given = {"SNAKELINE_URL": server.url, "XDG_CONFIG_HOME": str(tmp_path / "config"), **environ}
        return CliRunner().invoke(app, arguments, env=given)

    return run


def done(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_submission_prints_the_id_alone_and_sends_what_was_typed(
    command: Command, server: LiveServer, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text("count: 7\nmock: {seconds: 0, lines: 3}\n")
    out = done(
        command(
            *("submit", "demo", "results/report.txt", "-f", str(tmp_path / "params.yaml")),
            *("-p", "count=12", "-p", "greeting=007", "--name", "typed", "-l", "run=1e3"),
            *(
                "--cores",
                "2",
                "--memory-mb",
                "512",
                "--timeout",
                "2h",
                "--max-retries",
                "1",
                "-o",
                "keep_going=true",
            ),
        )
    )
    job = server.client.job(out.strip())
    assert out == f"{job['id']}\n"
    assert job["parameters"] == {"count": 12, "greeting": "007", "mock": {"seconds": 0, "lines": 3}}
    assert (job["targets"], job["name"], job["labels"]) == (["results/report.txt"], "typed", {"run": "1e3"})
    assert (job["cores"], job["memory_mb"], job["timeout_s"], job["max_retries"]) == (2, 512, 7200, 1)
    assert job["options"]["keep_going"] is True


@pytest.mark.parametrize(
    ("mock", "code"),
    [
        ({"seconds": 0}, 0),
        ({"exit_code": 3}, 3),
        ({"exit_code": 255}, 255),
        ({"signal": 9}, 137),
    ],
)
@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_the_exit_code_is_the_jobs(command: Command, mock: dict[str, Any], code: int, how: str) -> None:
    result = command("submit", "demo", "-p", f"mock={json.dumps(mock)}", how)
    assert result.exit_code == code, result.output
    assert ("✓ completed" if code == 0 else "✗ failed") in result.stderr


def test_following_shows_the_whole_log_of_every_attempt(command: Command, server: LiveServer) -> None:
    result = command(
        *("submit", "failing", "--max-retries", "1", "--follow", "--name", "followed"),
        *("-p", 'mock={"fail_rule": "check"}'),
    )
    assert result.exit_code == 1
    job = server.client.get("/jobs?q=followed").json()["items"][0]
    logs = [server.client.get(f"/jobs/{job['id']}/logs?attempt={n}").text for n in (1, 2)]
    assert result.stdout == "".join(logs)
    assert "Attempt 1 failed; attempt 2 begins." in result.stderr
    assert "Rule check failed" in result.stderr


def test_quiet_and_json_say_what_a_script_needs(command: Command, server: LiveServer) -> None:
    job_id = done(command("submit", "demo", "-p", QUICK, "-q")).strip()
    waited = command("submit", "demo", "-p", QUICK, "--wait", "--json")
    assert json.loads(done(waited))["status"] == "completed"
    assert waited.stderr == ""
    server.client.wait_for(job_id)
    assert done(command("show", job_id, "-q")) == "completed\n"
    assert json.loads(done(command("show", job_id, "--json"))) == server.client.job(job_id)
    assert job_id in done(command("list", "-q", "--all")).split()
    assert done(command("tasks", job_id, "-q")).split() == [str(n) for n in range(5)]
    tasks = json.loads(done(command("tasks", job_id, "--json")))
    assert {task["rule"] for task in tasks["items"]} >= {"numbers", "report"}
    pieces = [json.loads(line) for line in done(command("logs", job_id, "-f", "--json")).splitlines()]
    assert "".join(piece["text"] for piece in pieces) == server.client.get(f"/jobs/{job_id}/logs").text


def test_a_job_is_found_by_the_beginning_of_its_id(command: Command, server: LiveServer) -> None:
    job_id = server.client.run()["id"]
    assert done(command("show", job_id[:30], "-q")) == "completed\n"
    result = command("show", job_id[:7])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert command("show", "00000000").exit_code == 2


def test_the_list_is_filtered_and_goes_over_pages(command: Command, server: LiveServer) -> None:
    for n in range(3):
        server.client.run(name=f"listed {n}", labels={"of": "list"})
    assert len(done(command("list", "-q", "-l", "of=list", "--search", "listed")).split()) == 3
    text = command("list", "-l", "of=list", "-n", "2")
    assert ("listed 2" in text.stdout, "listed 0" in text.stdout) == (True, False)
    assert "2 of 3 jobs" in text.stderr
    assert command("list", "-q", "-s", "nonsense").exit_code == 65


def test_why_a_job_failed_is_on_the_first_screen(command: Command, server: LiveServer) -> None:
    mock = {"fail_rule": "check", "stderr_text": "sample 10 has no reads"}
    job_id = server.client.run(workflow="failing", parameters={"mock": mock})["id"]
    shown = done(command("show", job_id))
    assert "✗ failed (exited_nonzero, exit code 1)" in shown
    assert "sample 10 has no reads" in shown
    assert "Rule check failed" in shown


def test_a_refusal_is_one_line_with_the_field_and_the_request_id(command: Command) -> None:
    result = command("submit", "wordcount", "-p", "top_n=0")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (65, "", 1)
    assert "/parameters/top_n" in result.stderr
    assert "(request " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "x" * 36), 65, "404 "),
        (("list", "--url", "http://127.0.0.1:9"), 69, "does not answer"),
        (("list", "--url", "ftp://a"), 2, "is no address"),
        (("list", "--profile", "none"), 2, "there is no profile 'none'"),
        (("list", "--url", "http://a", "--profile", "b"), 2, "not by both"),
        (("submit", "demo", "-p", "alone"), 2, "neither key=value nor key:=JSON"),
        (("submit", "demo", "--timeout", "soon"), 2, "no length of time"),
        (("submit", "demo", "-a", "/no/such/file"), 1, "/no/such/file"),
        (("submit",), 2, "name a workflow"),
        (("submit", "demo", "--follow", "--json"), 2, "--follow"),
        (("logs", "x" * 36, "--tail", "1", "--offset", "1"), 2, "--tail and --offset"),
    ],
)
def test_what_cannot_be_done_has_a_code_and_says_why(
    command: Command, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_jobs_are_cancelled_run_again_and_deleted(
    command: Command, server: LiveServer, tmp_path: Path
) -> None:
    hold = {"mock": {"hold": str(tmp_path / "go")}}
    ids = [server.client.submit(parameters=hold)["id"] for _ in range(2)]
    for each in ids:
        server.client.wait_for(each, "running")
    assert command("delete", ids[0]).exit_code == 65
    assert json.loads(done(command("cancel", *ids, "--wait", "--json")))["total"] == 2
    assert {server.client.job(each)["status"] for each in ids} == {"cancelled"}
    again = command("cancel", ids[0], "-q")
    assert (again.exit_code, again.stdout) == (65, "")
    (tmp_path / "go").write_text("go")
    assert done(command("retry", ids[0], "--wait", "-q")) == ""
    assert server.client.job(ids[0])["attempt"] == 2
    assert done(command("delete", *ids)) == "".join(f"{each} is deleted.\n" for each in ids)
    assert server.client.get(f"/jobs/{ids[0]}").status_code == 404


def test_one_refusal_keeps_nothing_else_from_being_done(command: Command, server: LiveServer) -> None:
    job_id = server.client.run()["id"]
    result = command("delete", "y" * 36, job_id)
    assert (result.exit_code, result.stdout) == (65, f"{job_id} is deleted.\n")
    assert "404" in result.stderr


def test_files_go_with_a_job_and_come_back(command: Command, server: LiveServer, tmp_path: Path) -> None:
    job_id = server.client.run()["id"]
    work = server.data_dir / "jobs" / job_id / "work"
    there = json.loads(done(command("outputs", "list", job_id, "--prefix", "results/", "--json")))["items"]
    assert [each["path"] for each in there] == sorted(
        f"results/{p.name}" for p in (work / "results").iterdir()
    )
    to = tmp_path / "got"
    done(command("outputs", "get", job_id, "results/", "README.md", "--to", str(to)))
    for each in there:
        assert (to / each["path"]).read_bytes() == (work / each["path"]).read_bytes()
    assert (to / "README.md").exists()
    again = command("outputs", "get", job_id, "README.md", "--to", str(to))
    assert (again.exit_code, "exists: --force replaces" in again.stderr) == (2, True)
    done(command("outputs", "get", job_id, "README.md", "--to", str(to), "--force", "-q"))
    piped = command("outputs", "get", job_id, "results/report.txt", "--to", "-")
    assert done(piped) == (work / "results/report.txt").read_text()
    done(command("outputs", "get", job_id, "results/", "--zip", str(tmp_path / "all.zip")))
    assert (tmp_path / "all.zip").read_bytes().startswith(b"PK")
    assert command("outputs", "get", job_id, "no/such", "--to", str(to)).exit_code == 65
    assert command("outputs", "get", job_id, "../../x", "--to", str(to)).exit_code == 2
    assert command("outputs", "get", job_id, "--zip", str(tmp_path / "x.zip"), "--rule", "a").exit_code == 2
    assert not (tmp_path / "x.zip").exists()


def test_a_plan_says_what_would_run_and_fails_where_it_cannot(command: Command) -> None:
    assert "report" in done(command("plan", "demo"))
    bad = command("plan", "demo", "nobody.makes", "--json")
    assert (bad.exit_code, json.loads(bad.stdout)["ok"]) == (65, False)


def test_a_service_is_asked_about_workflows_where_it_is_named(command: Command, server: LiveServer) -> None:
    names = done(command("workflows", "list", "--remote", "-q")).split()
    assert {"demo", "failing", "wordcount"} <= set(names)
    assert "top_n" in done(command("workflows", "show", "wordcount"))
    assert json.loads(done(command("keys", "list", "--url", server.url, "--json")))["total"] >= 0


def test_the_log_is_exact_in_a_pipe_and_has_no_commands_for_a_terminal(
    command: Command, server: LiveServer
) -> None:
    nasty = "a\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07\x9b\r\n\xff"
    job_id = server.client.run(parameters={"mock": {"seconds": 0, "stderr_text": nasty}})["id"]
    whole = server.client.get(f"/jobs/{job_id}/logs").content
    assert CliRunner().invoke(app, ["logs", job_id, "--url", server.url]).stdout_bytes == whole
    tail = command("logs", job_id, "--tail", "2").stdout_bytes
    assert tail == b"".join(whole.splitlines(keepends=True)[-2:])
    assert command("logs", job_id, "--offset", "10").stdout_bytes == whole[10:]


def test_a_reader_that_has_had_enough_ends_the_command_in_silence(server: LiveServer) -> None:
    job_id = server.client.run(parameters={"mock": {"seconds": 0, "lines": 50_000}})["id"]
    process = subprocess.Popen(
        [sys.executable, "-m", "snakeline", "logs", job_id],
        env=service_environment({"URL": server.url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141


def test_an_interrupt_leaves_the_job_running_and_says_how_to_come_back_to_it(
    server: LiveServer, tmp_path: Path
) -> None:
    hold = json.dumps({"hold": str(tmp_path / "go")})
    process = subprocess.Popen(
        [*INTERRUPTIBLE, sys.executable, "-m", "snakeline", "submit", "demo", "-p", f"mock={hold}", "--wait"],
        env=service_environment({"URL": server.url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    job_id = process.stdout.readline().strip()
    server.client.wait_for(job_id, "running")
    process.send_signal(2)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told == (
        f"Job {job_id} goes on: `snakeline watch {job_id}` comes back to it, "
        f"`snakeline cancel {job_id}` ends it.\n"
    )
    assert server.client.job(job_id)["status"] == "running"
    (tmp_path / "go").write_text("go")
    wait_until(lambda: server.client.job(job_id)["status"] == "completed", what="the job to go on")


def test_of_several_jobs_none_is_touched_before_all_are_known(command: Command, server: LiveServer) -> None:
    job_id = server.client.run()["id"]
    result = command("delete", job_id, "00000000-nope", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert server.client.job(job_id)["status"] == "completed"


def test_several_are_all_asked_for_before_the_first_is_waited_for(
    command: Command, server: LiveServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    jobs = [server.client.submit(parameters={"mock": {"hold": str(gate)}})["id"] for _ in range(2)]
    done(command("cancel", *jobs, "--wait", "--quiet"))
    assert [server.client.job(job_id)["status"] for job_id in jobs] == ["cancelled"] * 2
    gate.write_text("go")
    retried = json.loads(done(command("retry", *jobs, "--wait", "--json")))["items"]
    assert [(job["id"], job["status"], job["attempt"]) for job in retried] == [
        (job_id, "completed", 2) for job_id in jobs
    ]


def test_what_is_no_snakeline_service_is_told_in_one_line(command: Command) -> None:
    with scripted_service() as stranger:
        stranger.script = [Step(body=b"<html>Sign in</html>"), Step(body=b'{"hello": 1}')]
        for _ in range(2):
            result = command("list", "--url", stranger.url)
            assert (result.exit_code, result.stdout) == (69, "")
            said = f"snakeline: what answers at {stranger.url}/jobs is no Snakeline service: "
            assert result.stderr.startswith(said)
            assert result.stderr.count("\n") == 1


def test_a_wait_for_the_service_is_told_on_standard_error(command: Command) -> None:
    busy = Step(503, {"Retry-After": "1"}, b'{"title": "The service starts"}')
    empty = Step(body=b'{"items": [], "total": 0, "next_cursor": null}')
    with scripted_service() as service:
        service.script = [busy, empty]
        result = command("list", "--json", "--url", service.url)
        assert json.loads(done(result)) == {"items": [], "total": 0}
        assert result.stderr == "503 The service starts: trying again in 1 s (try 2)\n"


def test_on_a_narrow_terminal_columns_are_left_out_from_the_last_on() -> None:
    widths = [18, 11, 30, 8, 5, 5, 10]
    assert _columns_with_room(widths, 200, 2) == [0, 1, 2, 3, 4, 5, 6]
    assert _columns_with_room(widths, 60, 2) == [0, 1, 2, 3]
    assert _columns_with_room(widths, 45, 2) == [0, 1, 2]
    assert _columns_with_room(widths, 40, 2) == [0, 1]
    assert _columns_with_room(widths, 10, 2) == [0, 1]
