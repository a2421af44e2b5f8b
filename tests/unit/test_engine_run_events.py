"""The reader of a run's events trusts nothing of what it reads."""

from __future__ import annotations

import os
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from runner.engines import event_lines
from runner.engines.run_events import EventsReader
from runner.jobs import Progress
from tests.support.telling_attempt import TellingAttempt

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def attempt(tmp_path: Path) -> TellingAttempt:
    return TellingAttempt(tmp_path)


def test_a_file_that_does_not_exist_yet_says_nothing(attempt: TellingAttempt) -> None:
    assert attempt.reader.advance() is False
    state = attempt.reader.state
    assert (state.progress, state.failure, state.errors, state.failures) == (None, None, (), 0)


def test_progress_follows_the_events(attempt: TellingAttempt) -> None:
    attempt.tell("run_info", total=4, rules={"a": 4}, cores=1)
    assert attempt.progress() == Progress(4)
    attempt.tell("job_started", jobids=[1, 2, 3])
    assert attempt.progress() == Progress(4, running=3)
    attempt.tell("job_finished", jobid=1)
    attempt.fail(jobid=2)
    assert attempt.progress() == Progress(4, done=1, running=1, failed=1)
    attempt.tell("progress", done=3, total=6)
    assert attempt.progress() == Progress(6, done=3, running=1, failed=1)


def test_what_needed_no_run_is_counted_apart(attempt: TellingAttempt) -> None:
    rules = [{"rule": "a", "needed": 0, "up_to_date": 3}, {"rule": "b", "needed": 2, "up_to_date": 1}]
    attempt.tell("rule_graph", rules=rules, edges=[["a", "b"]])
    attempt.tell("rule_graph")  # too wide for a line
    assert attempt.progress() == Progress(2, up_to_date=4)
    attempt.tell("progress", done=1, total=6)  # of steps, and of those that `until` leaves out
    assert attempt.progress() == Progress(2, 1, up_to_date=4)


def test_a_piece_is_read_at_a_time(attempt: TellingAttempt) -> None:
    attempt.tell("run_info", total=2)
    attempt.append(b'{"v": 2, "event": "unknown"}\n' * 10_000)
    attempt.tell("run_info", total=3)
    pieces = 1
    while attempt.reader.advance(65536):
        pieces += 1
        assert attempt.reader.progress == Progress(2)
    assert pieces == 1 + 10_000 * 29 // 65536
    assert attempt.progress() == Progress(3)


def test_a_line_that_is_written_in_two_pieces_counts_once_it_is_whole(attempt: TellingAttempt) -> None:
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
        b'{"v": 3, "event": "run_info", "total": 9}',
        b'{"v": [], "event": "run_info", "total": 9}',
        b'{"v": true, "event": "run_info", "total": 9}',
        b'{"v": 1, "event": "run_info", "total": 9}, {"v": 1, "event": "run_info", "total": 9}',
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
def test_a_line_that_makes_no_sense_is_passed_over(attempt: TellingAttempt, line: bytes) -> None:
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
    attempt = TellingAttempt(tmp_path_factory.mktemp("any"))
    for part in parts:
        attempt.append(part)
        attempt.reader.advance()


def test_an_endless_line_takes_no_memory(attempt: TellingAttempt) -> None:
    attempt.append(b"x" * 5_000_000)
    attempt.reader.advance()
    assert len(attempt.reader._lines._rest) <= 2**20
    attempt.append(b"\n")
    attempt.tell("run_info", total=1)
    assert attempt.progress() == Progress(1)


def test_a_link_in_place_of_the_file_is_not_followed(attempt: TellingAttempt, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text('{"v": 1, "event": "run_info", "total": 9}\n')
    os.symlink(other, attempt.files.events)
    assert attempt.progress() is None


def test_a_fifo_in_place_of_the_file_does_not_block(attempt: TellingAttempt) -> None:
    os.mkfifo(attempt.files.events)
    assert attempt.progress() is None


def test_all_that_run_of_a_failed_group_have_failed(attempt: TellingAttempt) -> None:
    attempt.tell("run_info", total=3)
    attempt.tell("job_started", jobids=[1, 2])
    attempt.tell("group_error", group="g", jobids=[1, 2, 3], message="the node is gone")
    assert attempt.progress() == Progress(3, failed=2)
    assert "the node is gone" in str(attempt.error())


def test_a_rule_that_succeeds_when_tried_again_is_no_error(attempt: TellingAttempt) -> None:
    attempt.tell("run_info", total=1)
    attempt.tell("job_started", jobids=[1])
    attempt.tell("error", message="RuleException: x")
    attempt.fail(1)
    assert attempt.error() == "Rule a failed"
    assert attempt.progress() == Progress(1, failed=1)
    attempt.tell("job_started", jobids=[1])
    attempt.tell("job_finished", jobid=1)
    assert attempt.error() is None
    assert attempt.progress() == Progress(1, done=1)


def test_an_error_of_no_rule_is_told_unless_it_only_says_that_there_was_one(attempt: TellingAttempt) -> None:
    attempt.tell("error", message="WorkflowError:\nAt least one job did not complete successfully.")
    assert attempt.error() is None
    attempt.tell("error", message="MissingRuleException:\nNo rule to produce \ud800x\0.")
    attempt.tell("error", message="another")
    assert attempt.error() == "MissingRuleException:\nNo rule to produce x."
    assert attempt.reader.state.errors == (attempt.error(), "another")
    for number in range(10):
        attempt.tell("error", message=f"and {number}")
    attempt.reader.advance()
    assert len(attempt.reader.state.errors) == 4


def secret_outside(attempt: TellingAttempt, tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("secret")
    os.mkdir(os.path.join(attempt.files.work, "logs"))
    return str(path)


@pytest.mark.parametrize(
    "kind", ["absolute", "dots", "link", "linked_folder", "hardlink", "fifo", "folder", "nul"]
)
def test_a_log_outside_the_working_directory_is_not_read(
    attempt: TellingAttempt, tmp_path: Path, kind: str
) -> None:
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


def test_broken_lines_are_told_once_and_cost_nothing_else(attempt: TellingAttempt) -> None:
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


@pytest.mark.parametrize("line", [b"\n", b"x\n", b'{"v":2}}\n', b"[1]\n", b'{"v":3}\n'])
def test_a_file_of_lines_that_are_no_events_is_given_up(attempt: TellingAttempt, line: bytes) -> None:
    """To fail at a line takes ten times as long as to read it."""
    attempt.tell("run_info", total=1)
    attempt.append(line * 100_000)
    attempt.tell("run_info", total=2)
    with structlog.testing.capture_logs() as told:
        began = time.thread_time()
        assert attempt.progress() == Progress(1)
        assert time.thread_time() - began < 0.5  # some 20 ms where nothing else runs
    assert len(told) == 1
    assert attempt.reader.advance() is False


@pytest.mark.parametrize(("limit", "most"), [("_MAX_LINES", 20_000), ("_FILE_BYTES", 2**18)])
def test_a_file_that_is_too_long_is_given_up(
    attempt: TellingAttempt, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(event_lines, limit, most)
    reader = EventsReader(attempt.files)
    attempt.append(b'{"v":2,"event":"x"}\n' * 100_000)
    attempt.tell("run_info", total=1)
    assert reader.advance() is False
    assert reader.progress is None
    assert reader._lines.offset < 8 * 65536


def test_what_a_job_invents_takes_little_of_the_services_memory(attempt: TellingAttempt) -> None:
    """Without an end to what is remembered, a job could have a gigabyte of it."""
    many = 40_000
    attempt.tell("run_info", total=many, rules={"a": many}, cores=1)
    for jobid in range(0, many, 1000):
        attempt.tell("job_started", jobids=list(range(jobid, jobid + 1000)))
    line = (
        '{"v": 1, "event": "job_info", "jobid": %d, "wildcards": {"a": "'
        + "\N{GRINNING FACE}" * 200
        + '"}}\n'
    )
    attempt.append("".join(line % jobid for jobid in range(many)).encode())
    for _ in range(4):
        attempt.tell("error", message="x", rule="x" * 900_000)
    tracemalloc.start()
    try:
        progress = attempt.progress()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert progress is not None
    assert progress.total == many
    assert taken < 2 * 2**20


def test_jobs_beyond_what_is_remembered_still_end(attempt: TellingAttempt) -> None:
    many = 10_500
    attempt.tell("run_info", total=many, rules={"a": many}, cores=1)
    attempt.tell("job_started", jobids=list(range(many)))
    for jobid in range(many):
        attempt.tell("job_finished", jobid=jobid)
    assert attempt.progress() == Progress(many, many)
