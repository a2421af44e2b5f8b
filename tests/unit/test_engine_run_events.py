"""The reader of a run's events trusts nothing of what it reads."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from runner.attempt_files import AttemptFiles
from runner.engines.run_events import EventsReader
from runner.jobs import Progress
from runner.ports import RunState

if TYPE_CHECKING:
    from pathlib import Path


class Attempt:
    def __init__(self, root: Path) -> None:
        self.files = AttemptFiles.of(root, "job", 1)
        os.makedirs(self.files.directory)
        os.makedirs(self.files.work)
        self.reader = EventsReader(self.files)

    def append(self, data: bytes) -> None:
        with open(self.files.events, "ab") as file:
            file.write(data)

    def tell(self, event: str, **fields: Any) -> None:
        self.append(json.dumps({"v": 1, "event": event, "t": 1.0, **fields}).encode() + b"\n")

    def fail(self, jobid: int = 1, rule: str = "a", log: Any = ()) -> None:
        self.tell("job_error", jobid=jobid, rule=rule, log=log, shellcmd=None)

    def error(self) -> str | None:
        self.reader.advance()
        return self.reader.state.error_message

    def progress(self) -> Progress | None:
        self.reader.advance()
        return self.reader.state.progress


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


def test_a_file_that_does_not_exist_yet_says_nothing(attempt: Attempt) -> None:
    assert attempt.reader.advance() is False
    assert attempt.reader.state == RunState()


def test_progress_follows_the_events(attempt: Attempt) -> None:
    attempt.tell("run_info", total=4, rules={"a": 4}, cores=1)
    assert attempt.progress() == Progress(4)
    attempt.tell("job_started", jobids=[1, 2, 3])
    assert attempt.progress() == Progress(4, running=3)
    attempt.tell("job_finished", jobid=1)
    attempt.fail(jobid=2)
    assert attempt.progress() == Progress(4, done=1, running=1, failed=1)
    attempt.tell("progress", done=3, total=6)
    assert attempt.progress() == Progress(6, done=3, running=1, failed=1)


def test_it_tells_whether_something_changed(attempt: Attempt) -> None:
    attempt.tell("run_info", total=1)
    assert attempt.reader.advance() is True
    assert attempt.reader.advance() is False
    attempt.tell("workflow_started", snakefile="x")
    assert attempt.reader.advance() is False
    attempt.tell("job_started", jobids=[1])
    assert attempt.reader.advance() is True


def test_a_line_that_is_written_in_two_pieces_counts_once_it_is_whole(attempt: Attempt) -> None:
    attempt.append(b'{"v": 1, "event": "run_info", "to')
    assert attempt.progress() is None
    attempt.append(b'tal": 2}\n')
    assert attempt.progress() == Progress(2)


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"\xff\xfe\x00",
        b"[1]",
        b"null",
        b'{"v": 2, "event": "run_info", "total": 9}',
        b'{"v": 1, "event": "surprise", "total": 9}',
        b'{"v": 1, "event": ["run_info"], "total": 9}',
        b'{"v": 1, "event": "run_info", "total": "9"}',
        b'{"v": 1, "event": "run_info", "total": true}',
        b'{"v": 1, "event": "run_info", "total": -1}',
        b'{"v": 1, "event": "run_info", "total": 1e9}',
        b'{"v": 1, "event": "run_info", "total": ' + b"9" * 5000 + b"}",
        b'{"v": 1, "event": "job_error", "jobid": [], "rule": 1}',
        b'{"v": 1, "event": "job_started", "jobids": {"a": 1}}',
        b"[" * 100_000,
        b'{"v": 1, "event": "run_info", "total": 9, "x": "' + b"x" * 2_000_000 + b'"}',
    ],
)
def test_a_line_that_makes_no_sense_is_passed_over(attempt: Attempt, line: bytes) -> None:
    attempt.append(line + b"\n")
    attempt.tell("run_info", total=3)
    assert attempt.progress() == Progress(3)


@given(
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from([b'{"v":1,"event":"job_error","jobid":1,"rule":"a"}\n', b"\n"])
    )
)
def test_no_content_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    attempt = Attempt(tmp_path_factory.mktemp("any"))
    for part in parts:
        attempt.append(part)
        attempt.reader.advance()


def test_an_endless_line_takes_no_memory(attempt: Attempt) -> None:
    attempt.append(b"x" * 5_000_000)
    attempt.reader.advance()
    assert len(attempt.reader._rest) <= 2**20
    attempt.append(b"\n")
    attempt.tell("run_info", total=1)
    assert attempt.progress() == Progress(1)


def test_a_link_in_place_of_the_file_is_not_followed(attempt: Attempt, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text('{"v": 1, "event": "run_info", "total": 9}\n')
    os.symlink(other, attempt.files.events)
    assert attempt.progress() is None


def test_a_fifo_in_place_of_the_file_does_not_block(attempt: Attempt) -> None:
    os.mkfifo(attempt.files.events)
    assert attempt.progress() is None


def test_the_first_failing_rule_is_told_with_the_end_of_its_log(attempt: Attempt) -> None:
    with open(os.path.join(attempt.files.work, "a.log"), "w", encoding="utf-8") as file:
        file.write("".join(f"line {number}\n" for number in range(50)) + "\n\x1b[31mno space\x1b[0m\n")
    attempt.tell("job_started", jobids=[1])
    attempt.tell("job_info", jobid=1, rule="a", wildcards={"sample": "x7"})
    attempt.tell("error", message="RuleException: x")
    attempt.fail(1, "a", ["a.log"])
    attempt.fail(2, "b", ["a.log"])
    error = attempt.error()
    assert error is not None
    assert error.splitlines() == [
        "Rule a failed (sample=x7)",
        *(f"line {number}" for number in range(41, 50)),
        "no space",
    ]


def test_a_rule_that_succeeds_when_tried_again_is_no_error(attempt: Attempt) -> None:
    attempt.tell("run_info", total=1)
    attempt.tell("job_started", jobids=[1])
    attempt.tell("error", message="RuleException: x")
    attempt.fail(1)
    assert attempt.error() == "Rule a failed"
    attempt.tell("job_started", jobids=[1])
    attempt.tell("job_finished", jobid=1)
    assert attempt.error() is None
    assert attempt.progress() == Progress(1, done=1)


def test_an_error_of_no_rule_is_told_unless_it_only_says_that_there_was_one(attempt: Attempt) -> None:
    attempt.tell("error", message="WorkflowError:\nAt least one job did not complete successfully.")
    assert attempt.error() is None
    attempt.tell("error", message="MissingRuleException:\nNo rule to produce \ud800x\0.")
    attempt.tell("error", message="another")
    assert attempt.error() == "MissingRuleException:\nNo rule to produce x."


def secret_outside(attempt: Attempt, tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("secret")
    os.mkdir(os.path.join(attempt.files.work, "logs"))
    return str(path)


@pytest.mark.parametrize(
    "kind", ["absolute", "dots", "link", "linked_folder", "hardlink", "fifo", "folder", "nul"]
)
def test_a_log_outside_the_working_directory_is_not_read(attempt: Attempt, tmp_path: Path, kind: str) -> None:
    secret, work = secret_outside(attempt, tmp_path), attempt.files.work
    inside = os.path.join(work, "logs", "x")
    path = "logs/x"
    match kind:
        case "absolute":
            path = secret
        case "dots":
            path = os.path.relpath(secret, work)
        case "link":
            os.symlink(secret, inside)
        case "linked_folder":
            os.symlink(tmp_path, inside)
            path = "logs/x/secret"
        case "hardlink":
            os.link(secret, inside)
        case "fifo":
            os.mkfifo(inside)
        case "folder":
            os.mkdir(inside)
        case _:
            path = "logs/\0"
    attempt.fail(1, "a", [path])
    assert attempt.error() == "Rule a failed"


def test_an_absolute_log_inside_the_working_directory_is_read(attempt: Attempt) -> None:
    path = os.path.join(attempt.files.work, "a.log")
    with open(path, "w", encoding="utf-8") as file:
        file.write("why\n")
    attempt.fail(1, "a", [path])
    assert attempt.error() == "Rule a failed\nwhy"


def test_broken_lines_are_told_once_and_cost_nothing_else(attempt: Attempt) -> None:
    with structlog.testing.capture_logs() as told:
        attempt.append(b"\x00\xff{not json\n")
        attempt.tell("run_info", total=4, rules={"a": 4}, cores=1)
        attempt.append(b"{'again': 1}\n")
        assert attempt.progress() == Progress(4)
        attempt.append(b"and again\n")
        attempt.reader.advance()
    assert [(entry["event"], entry["path"]) for entry in told] == [
        ("events.broken_line", attempt.files.events)
    ]
