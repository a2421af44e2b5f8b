"""The first real error is found in what Snakemake and others write."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engines import own_words
from runner.engines.error_text import explain, unfinished, written_by
from runner.jobs import Progress
from runner.plain_text import last_lines
from runner.ports import RunState
from runner.tasks import Task, TaskFailure, TaskStatus
from tests.support.snakemake_logs import INNER_RUN

SHELL = """[Tue Nov 24 08:26:00 2026]
localrule other:
    output: other.txt
    jobid: 3
    resources: tmpdir=/tmp
something from the other rule
[Tue Nov 24 08:26:00 2026]
Finished jobid: 3 (Rule: other)
1 of 4 steps (25%) done
Select jobs to execute...
Execute 1 jobs...

[Tue Nov 24 08:26:00 2026]
localrule check:
    input: results/samples.txt
    jobid: 2
    reason: Missing output files: results/checked.txt
    resources: tmpdir=/tmp
{stderr}RuleException:
CalledProcessError in file "/tmp/mk/f/Snakefile", line 30:
Command 'set -euo pipefail;
        exit 3' returned non-zero exit status 3.
[Tue Nov 24 08:26:00 2026]
Error in rule check:
    message: None
    jobid: 2
    shell:
        exit 3
        (command exited with non-zero exit code)
Shutting down, this might take some time.
Exiting because a job execution failed. Look above for error messages
Complete log(s): /x/.snakemake/log/2026-11-24T082600.236621.snakemake.log
Elapsed time: 0:00:00.090044
WorkflowError:
At least one job did not complete successfully.
"""


def failed(log: str, what: str = "", *, log_lines: str = "") -> str | None:
    failure = TaskFailure(2, "check", what)
    return explain(RunState(None, failure, 1, log_path="x.log", log_lines=log_lines), log.encode())


def told(log: str) -> str | None:
    return explain(RunState(), log.encode())


def test_a_rule_is_explained_by_what_it_wrote() -> None:
    expected = "Rule check failed: its command exited with 3\nThe end of what it wrote:\nno space\nleft"
    assert failed(SHELL.replace("{stderr}", "no space\nleft\n")) == expected


def test_a_silent_rule_is_explained_by_its_exit_code() -> None:
    assert failed(SHELL.replace("{stderr}", "")) == "Rule check failed: its command exited with 3"


def test_a_rule_whose_command_was_killed_is_explained_by_the_signal() -> None:
    log = SHELL.replace("{stderr}", "").replace(
        "returned non-zero exit status 3.", "died with <Signals.SIGKILL: 9>."
    )
    assert failed(log) == "Rule check failed: its command was ended by SIGKILL"


def test_what_the_run_has_told_of_it_comes_first() -> None:
    assert failed(SHELL.replace("{stderr}", ""), "it is broken") == "Rule check failed: it is broken"


def test_an_exception_in_a_run_block_is_told() -> None:
    log = SHELL.replace("{stderr}", "").replace("CalledProcessError in", "ValueError in")
    log = log.replace(
        "Command 'set -euo pipefail;\n        exit 3' returned non-zero exit status 3.", "no such sample"
    )
    found = failed(log)
    assert found is not None
    assert found.splitlines()[-1] == "no such sample"


def test_of_two_tasks_of_one_rule_the_right_one_is_quoted() -> None:
    one = SHELL.replace("{stderr}", "of the first\n")
    other = SHELL.replace("{stderr}", "of the second\n").replace("jobid: 2", "jobid: 7")
    assert str(failed(other + one)).endswith("\nof the first")
    assert str(failed(one + other)).endswith("\nof the first")


def test_what_is_said_of_anothers_command_is_left_out() -> None:
    others = SHELL[SHELL.index("CalledProcessError") : SHELL.index("[Tue Nov 24 08:26:00 2026]\nError")]
    own = f"my own words\nRuleException:\n{others}"
    expected = "Rule check failed: it broke\nThe end of what it wrote:\nmy own words"
    assert failed(SHELL.replace("{stderr}", own), "it broke") == expected


def test_of_a_task_that_was_tried_again_the_latest_try_is_quoted() -> None:
    tries = [SHELL.replace("{stderr}", f"try {number}\n") for number in (1, 2)]
    assert str(failed("".join(tries), "it ended")).endswith("\nThe end of what it wrote:\ntry 2")


def test_how_a_command_ended_is_taken_from_the_runs_log_where_nothing_else_says_it() -> None:
    found = failed(SHELL.replace("{stderr}", "noise\n"), log_lines="why")
    assert found == "Rule check failed: its command exited with 3\nThe end of x.log:\nwhy"


def test_a_task_on_a_cluster_is_quoted_from_the_log_of_the_snakemake_inside() -> None:
    task = Task(number=6, rule="check", status=TaskStatus.FAILED)
    assert written_by(task, INNER_RUN.encode()) == "reads are empty"


def test_the_rules_own_log_is_quoted_and_not_the_runs() -> None:
    found = failed(SHELL.replace("{stderr}", "noise\n"), "it ended", log_lines="why")
    assert found == "Rule check failed: it ended\nThe end of x.log:\nwhy"


def test_an_error_of_no_rule_is_kept() -> None:
    state = RunState(errors=("MissingRuleException:\nNo rule", "another"))
    assert explain(state, b"whatever") == "MissingRuleException:\nNo rule"


def test_wrong_arguments_are_told_without_the_usage() -> None:
    log = "usage: snakemake [--help]\n  [--cores N]\nsnakemake: error: unrecognized arguments: --x\n"
    assert told(log) == "snakemake: error: unrecognized arguments: --x"


def test_without_events_the_end_of_the_log_is_told_without_boilerplate() -> None:
    log = 'Error: Snakefile "x" not found.\nComplete log(s): y\nElapsed time: 0:00:00.1\n'
    assert told(log) == 'Error: Snakefile "x" not found.'


def test_an_empty_log_explains_nothing() -> None:
    assert told("") is None


def test_terminal_sequences_and_control_characters_are_gone() -> None:
    text = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x00\x08\r\nnext\rover\x1b(B"
    assert last_lines(text) == "red plain\nnext\nover(B"


@pytest.mark.parametrize("count", [0, 1, 20, 21, 500])
def test_at_most_twenty_lines_are_told(count: int) -> None:
    lines = [f"line {number}" for number in range(count)]
    assert last_lines("\n".join(lines)).splitlines() == lines[-20:]


@pytest.mark.parametrize(
    ("progress", "log", "expected"),
    [
        (None, "", "The workflow ended before any rule ran"),
        (None, "hello from the Snakefile\n", "The workflow ended before any rule ran"),
        (None, "Building DAG of jobs...\nNothing to be done (all there).\n", None),
        (None, "x" * 65536, None),  # the rest of it may say more
        (Progress(3, 1), "1 of 3 steps (33%) done\n", "only 1 of its 3 tasks are done"),
        (Progress(3, 1), "3 of 3 steps (100%) done\n", None),
        (Progress(3, 3), "", None),
    ],
)
def test_a_run_that_succeeded_without_doing_it_all_is_remarked_on(
    progress: Progress | None, log: str, expected: str | None
) -> None:
    found = unfinished(RunState(progress), log.encode())
    assert found is None if expected is None else expected in str(found)


@pytest.mark.parametrize(
    "line",
    [
        "x (missing locally" * 3_000,
        'File "/site-packages/' * 3_000,
        "    input:" * 6_000,
        "a  1" * 16_000,
        " " * 60_000,
    ],
)
def test_a_long_line_that_was_made_for_it_takes_no_time(line: str) -> None:
    began = time.thread_time()
    told(line)
    failed(SHELL.replace("{stderr}", line))
    own_words.told(f"X:\n{line}", ())
    assert time.thread_time() - began < 0.3  # some milliseconds where nothing else runs


@given(st.binary(max_size=300))
def test_any_log_gives_an_explanation_that_can_be_stored(log: bytes) -> None:
    for failure in (None, TaskFailure(1, "a", "")):
        found = explain(RunState(None, failure), log) or ""
        assert "\0" not in found
        assert len(found) < 12_000
        found.encode()


def test_a_run_that_was_killed_without_a_word_explains_nothing() -> None:
    log = (
        "Job stats:\njob      count\n-------  -----\nnumbers      1\ntotal        5\n\n"
        + SHELL.split("{stderr}", maxsplit=1)[0]
    )
    assert told(log.replace("something from the other rule\n", "")) is None
