"""What the stand-in does on request: every key of `parameters.mock`, and the settings in its environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mock_snakemake.streams import numbered
from runner.jobs import JobSpec, Progress
from runner.settings import MockSettings
from tests.support import engines
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.ports import Workflow

DEMO: Workflow = engines.workflow_of(engines.BUNDLED / "demo")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[engines.Bench]:
    with engines.Bench(engines.make_engine("mock", tmp_path), tmp_path / "data") as bench:
        yield bench


@pytest.fixture
def hold(tmp_path: Path) -> engines.Fifo:
    return engines.Fifo(tmp_path / "hold")


def told(**mock: Any) -> JobSpec:
    return JobSpec(parameters={"mock": {"seconds": 0, **mock}})


@pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
def test_it_ends_with_the_exit_code_it_is_told(bench: engines.Bench, code: int) -> None:
    assert bench.run(DEMO, told(exit_code=code)).exit_code == code


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP, signal.SIGRTMAX]
)
def test_it_dies_of_the_signal_it_is_told(bench: engines.Bench, number: int) -> None:
    assert bench.run(DEMO, told(signal=int(number))).exit_code == -number


def test_the_named_rule_fails_and_the_ones_behind_it_do_not_run(bench: engines.Bench) -> None:
    finished = bench.run(DEMO, told(fail_rule="shuffle"))
    assert finished.exit_code == 1
    assert b"Error in rule shuffle:" in finished.log
    assert b"Exiting because a job execution failed" in finished.log
    assert not (bench.work / "results/report.txt").exists()


def test_a_report_is_of_the_part_that_was_wanted(bench: engines.Bench) -> None:
    spec = JobSpec(options={"until": ["shuffle"], "dry_run": True})
    bench.command(DEMO, spec)
    report = bench.engine.report(engines.make_job(spec), DEMO, bench.files())
    assert bench.start_command(report, report.argv).wait().exit_code == 0
    with open(bench.files().report_draft, encoding="utf-8") as file:
        page = file.read()
    assert ("<td>shuffle</td>" in page, "<td>checksum</td>" in page) == (True, False)


def test_an_unknown_rule_to_fail_is_an_error(bench: engines.Bench) -> None:
    finished = bench.run(DEMO, told(fail_rule="nonsense"))
    assert finished.exit_code == 1
    assert "there is no rule nonsense" in (finished.explanation or "")


def test_it_fails_as_often_as_it_is_told_and_then_succeeds(bench: engines.Bench) -> None:
    codes = [bench.run(DEMO, told(fail_times=2)).exit_code for _ in range(4)]
    assert codes == [1, 1, 0, 0]


def test_it_prints_the_bytes_and_lines_it_is_told_and_nothing_else_on_stdout(bench: engines.Bench) -> None:
    command = bench.command(DEMO, told(lines=2, output_bytes=100_001))
    done = subprocess.run(command.argv, env=dict(command.environment), capture_output=True, check=True)
    assert done.stdout == b"line 1\nline 2\n" + numbered(0, 6251)[:100_001]


def test_it_says_the_text_it_is_told(bench: engines.Bench) -> None:
    assert "größer\n" in bench.run(DEMO, told(stderr_text="größer")).log.decode()


def test_every_start_is_marked_with_its_pid(bench: engines.Bench, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    runs = [bench.start(DEMO, told(touch=str(marks))) for _ in range(2)]
    assert [run.wait().exit_code for run in runs] == [0, 0]
    assert sorted(marks.read_text().splitlines()) == sorted(f"start {run.pid}" for run in runs)


def test_every_start_counts_itself_for_its_attempt(bench: engines.Bench, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    for _ in range(2):
        bench.run(DEMO, told(count_starts=str(counts)))
    job_id = engines.make_job(told()).id
    assert counts.read_text() == f"{job_id}/1\n{job_id}/2\n"


def test_it_is_held_until_a_file_has_something_in_it(bench: engines.Bench, tmp_path: Path) -> None:
    path, marks = tmp_path / "file", tmp_path / "marks"
    run = bench.start(DEMO, told(hold=str(path), touch=str(marks)))
    wait_until(lambda: b"Job stats" in run.log(), what="the run waits")
    path.write_text("go")
    assert run.wait().exit_code == 0


def test_sigterm_ends_a_sleep_at_once(bench: engines.Bench) -> None:
    run = bench.start(DEMO, told(seconds=600))
    wait_until(lambda: b"localrule" in run.log(), what="the first rule sleeps")
    began = time.monotonic()
    run.signal_group(signal.SIGTERM)
    finished = run.wait()
    assert time.monotonic() - began < 5
    assert finished.exit_code == 1
    assert b"Terminating processes on user request" in finished.log
    assert finished.state.progress == Progress(total=5, done=0, running=1)


def test_sigint_ends_it_likewise(bench: engines.Bench) -> None:
    run = bench.start(DEMO, told(seconds=600))
    wait_until(lambda: b"localrule" in run.log(), what="the first rule sleeps")
    run.signal_group(signal.SIGINT)
    assert run.wait().exit_code == 1


def test_it_ignores_sigterm_when_told(bench: engines.Bench, hold: engines.Fifo) -> None:
    run = bench.start(DEMO, told(ignore_term=True, hold=hold.path))
    writer = hold.wait_for_reader()
    run.signal_group(signal.SIGTERM)
    os.write(writer, b"go\n")
    os.close(writer)
    assert run.wait().exit_code == 0


def test_its_children_are_in_its_group_or_have_left_it(bench: engines.Bench, hold: engines.Fifo) -> None:
    run = bench.start(DEMO, told(spawn_children=2, setsid_children=1, hold=hold.path))
    writer = hold.wait_for_reader()
    children = psutil.Process(run.pid).children(recursive=True)
    groups = [os.getpgid(child.pid) for child in children]
    try:
        assert groups.count(run.pid) == 2
        assert len(groups) == 3
        os.write(writer, b"go\n")
        os.close(writer)
        assert run.wait().exit_code == 0
        left = [child for child in children if child.is_running()]
        assert [groups[children.index(child)] == run.pid for child in left] == [False]
    finally:
        for child in children:
            if child.is_running():
                child.kill()


def test_the_success_rate_decides_how_many_runs_fail(tmp_path: Path) -> None:
    for rate, expected in ((0.0, 1), (1.0, 0)):
        settings = MockSettings(min_s=0, max_s=0, success_rate=rate)
        engine = engines.make_engine("mock", tmp_path, mock=settings)
        with engines.Bench(engine, tmp_path / f"data{rate}") as bench:
            assert bench.run(DEMO, JobSpec()).exit_code == expected


def test_a_fixed_seed_repeats_a_job_and_tells_jobs_apart(tmp_path: Path) -> None:
    settings = MockSettings(min_s=0, max_s=0, success_rate=0.5, seed=7)
    engine = engines.make_engine("mock", tmp_path, mock=settings)

    def outcomes() -> list[tuple[int, str | None]]:
        found = []
        for number in range(12):
            command = engine.command(engines.make_job(JobSpec(), job_id=f"job-{number}"), DEMO, files)
            found.append(command)
        return [outcome(command.argv, dict(command.environment)) for command in found]

    with engines.Bench(engine, tmp_path / "data") as bench:
        bench.command(DEMO, JobSpec(options={"force_all": True}))
        files = bench.files()
        first, second = outcomes(), outcomes()
    assert first == second
    assert len(set(first)) > 2


def outcome(argv: tuple[str, ...], environment: dict[str, str]) -> tuple[int, str | None]:
    place = argv.index("--")
    done = subprocess.run(
        [*argv[:place], "--forceall", "--"], env=environment, capture_output=True, text=True, check=False
    )
    failing = [line for line in done.stderr.splitlines() if line.startswith("Error in rule")]
    return done.returncode, failing[0] if failing else None


def test_a_run_takes_its_time_between_the_limits(tmp_path: Path) -> None:
    settings = MockSettings(min_s=0.2, max_s=0.3, success_rate=1)
    engine = engines.make_engine("mock", tmp_path, mock=settings)
    with engines.Bench(engine, tmp_path / "data") as bench:
        began = time.monotonic()
        assert bench.run(DEMO, JobSpec()).exit_code == 0
        assert time.monotonic() - began >= 0.2


def test_it_stands_in_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text('rule a:\n    output: "a.txt"\n    shell: "echo a > {output}"\n')
    environment = {
        "MOCK_SNAKEMAKE_MIN_S": "0",
        "MOCK_SNAKEMAKE_MAX_S": "0",
        "MOCK_SNAKEMAKE_SUCCESS_RATE": "1",
    }
    base = [sys.executable, str(engines.ROOT / "mock_snakemake" / "__main__.py")]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert run("-c1").returncode == 0
    assert (tmp_path / "a.txt").exists()
    assert run("--version").stdout == "mock\n"
    wrong = run("--surprise")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("usage: ")
    assert run("-c0").returncode == 2


def test_a_broken_configuration_is_an_error_of_the_workflow(bench: engines.Bench) -> None:
    command = bench.command(DEMO, told())
    for content in ("{", "[]", '{"mock": {"surprise": 1}}', '{"mock": 1}'):
        (bench.work.parent / "attempts/1/config.json").write_text(content)
        done = subprocess.run(command.argv, env=dict(command.environment), capture_output=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(b"WorkflowError:")


def test_a_locked_directory_is_refused_until_unlocked(bench: engines.Bench, hold: engines.Fifo) -> None:
    first = bench.start(DEMO, told(hold=hold.path))
    writer = hold.wait_for_reader()
    command = bench.command(DEMO, told())
    assert bench.start_command(command, command.argv).wait().exit_code == 1
    first.signal_group(signal.SIGKILL)
    first.wait()
    os.close(writer)
    assert bench.start_command(command, command.prepare[0]).wait().exit_code == 0
    assert bench.start_command(command, command.argv).wait().exit_code == 0


def test_nonsense_in_its_parameters_is_refused_with_pointers(bench: engines.Bench) -> None:
    wrong = {
        "exit_code": 256,
        "signal": 17,
        "seconds": -1,
        "ignore_term": 1,
        "hold": "",
        "what": 1,
        "lines": True,
    }
    found = bench.engine.validate(JobSpec(parameters={"mock": wrong}))
    assert [error.pointer for error in found] == [f"/parameters/mock/{key}" for key in wrong]
    assert (
        len(bench.engine.validate(JobSpec(parameters={"mock": dict.fromkeys("abcdefghijklmnopqrstuvwxyz")})))
        == 20
    )
    assert bench.engine.validate(JobSpec(parameters={"mock": []}))[0].pointer == "/parameters/mock"


def test_its_events_are_one_object_a_line(bench: engines.Bench) -> None:
    bench.run(DEMO, told(fail_rule="checksum"))
    with open(bench.files().events, encoding="utf-8") as file:
        events = [json.loads(line) for line in file]
    assert all(event["v"] == 2 and isinstance(event["t"], float) for event in events)
    assert [event["event"] for event in events][:4] == [
        "workflow_started",
        "rule_graph",
        "tasks_planned",
        "run_info",
    ]
    assert events[-2]["event"] == "job_error"
    assert events[-2]["rule"] == "checksum"
    assert events[-2]["log"] == ["logs/checksum.log"]
