"""What is told of a run that failed: the first failure that no other explains, with the end of its log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.tasks import MissingInput
from tests.support.snakemake_logs import INNER_RUN
from tests.support.telling_attempt import TellingAttempt

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def attempt(tmp_path: Path) -> TellingAttempt:
    return TellingAttempt(tmp_path)


def test_the_first_failing_rule_is_told_with_the_end_of_its_log(attempt: TellingAttempt) -> None:
    with open(os.path.join(attempt.files.work, "a.log"), "w", encoding="utf-8") as file:
        file.write("".join(f"line {number}\n" for number in range(50)) + "\n\x1b[31mno space\x1b[0m\n")
    attempt.tell("job_started", jobids=[1])
    attempt.tell("job_info", jobid=1, rule="a", wildcards={"sample": "x7"})
    attempt.tell("error", message="RuleException: x")
    attempt.fail(1, "a", ["a.log"], exit_code=3, shellcmd="sort a |\n    head")
    attempt.fail(2, "b", ["a.log"])
    attempt.fail(3, "c")
    error = attempt.error()
    assert error is not None
    assert error.splitlines() == [
        "Rule a failed (sample=x7): its command exited with 3",
        "Its command:",
        "    sort a |",
        "    head",
        "The end of a.log:",
        *(f"line {number}" for number in range(31, 50)),
        "no space",
        "And 2 more tasks failed.",
    ]


def test_of_a_clusters_log_the_end_of_what_the_command_wrote_is_told(attempt: TellingAttempt) -> None:
    log = os.path.join(attempt.files.work, ".snakemake/slurm_logs/rule_check/7.log")
    os.makedirs(os.path.dirname(log))
    for text, lines in ((INNER_RUN, ["reads are empty"]), ("slurmstepd: error: DUE TO TIME LIMIT\n", None)):
        with open(log, "w", encoding="utf-8") as file:
            file.write(text)
        attempt.tell("job_started", jobids=[6])
        attempt.fail(6, "check", [".snakemake/slurm_logs/rule_check/7.log"], message="FAILED in Slurm")
        assert (attempt.error() or "").splitlines() == [
            "Rule check failed: FAILED in Slurm",
            "The end of .snakemake/slurm_logs/rule_check/7.log:",
            *(lines or [text.strip()]),
        ]


def test_the_failure_that_explains_the_others_is_told(attempt: TellingAttempt) -> None:
    attempt.fail(1, "a", exit_signal=13, knock_on=True)
    attempt.fail(2, "b", exit_code=5, t=2.5)
    assert str(attempt.error()).startswith("Rule b failed: its command exited with 5\n")
    assert attempt.reader.state.failed_at == (1.0, 2.5)
    attempt.tell("job_finished", jobid=2)
    assert str(attempt.error()).startswith("Rule a failed: its command was ended by SIGPIPE")
    attempt.tell("job_started", jobids=[1])
    attempt.fail(1, "a", exit_code=4)  # by itself now
    attempt.fail(2, "b", exit_code=5)
    assert str(attempt.error()).startswith("Rule a failed: its command exited with 4")


def test_an_error_is_told_without_our_folders_and_what_is_inside_snakemake(attempt: TellingAttempt) -> None:
    inside = '  File "/x/lib/python3.11/site-packages/snakemake/api.py", line 3, in f\n    call(\n    ^^^^\n'
    own = f'  File "{attempt.files.work}/rules/a.smk", line 7, in samples\n'
    telling = inside.replace("api.py", "exceptions.py")
    crash = f"During handling of the above exception, another exception occurred:\n{telling}KeyError: 2\n"
    attempt.tell("error", message=f"KeyError in {attempt.files.config}:\n{own}{inside}'x'\n\n{crash}")
    assert attempt.error() == "KeyError in config.json:\n  File \"rules/a.smk\", line 7, in samples\n'x'"


def test_a_long_error_is_cut_and_says_so(attempt: TellingAttempt) -> None:
    files = [f"in/{number:03}.txt" for number in range(100)]
    lines = [
        "Missing input files for rule all:",
        "    affected files:",
        *(f"        {file}" for file in files),
    ]
    attempt.tell("error", message="\n".join(["MissingInputException in rule all:", *lines]))
    told = str(attempt.error()).splitlines()
    assert (len(told), told[-1]) == (26, "... and 78 more lines")
    assert attempt.reader.state.missing_input == (MissingInput("all", tuple(files)),)


def test_a_log_that_can_be_read_only_later_is_read_then(attempt: TellingAttempt) -> None:
    attempt.fail(1, "a", ["logs/x"])
    assert attempt.error() == "Rule a failed"
    os.mkdir(os.path.join(attempt.files.work, "logs"))
    with open(os.path.join(attempt.files.work, "logs", "x"), "w", encoding="utf-8") as log:
        log.write("why it failed")
    assert attempt.error() == "Rule a failed\nThe end of logs/x:\nwhy it failed"


def test_an_absolute_log_inside_the_working_directory_is_read(attempt: TellingAttempt) -> None:
    path = os.path.join(attempt.files.work, "a.log")
    with open(path, "w", encoding="utf-8") as file:
        file.write("why\n")
    attempt.fail(1, "a", [path])
    assert attempt.error() == "Rule a failed\nThe end of a.log:\nwhy"


def test_a_script_is_named(attempt: TellingAttempt) -> None:
    attempt.tell("job_started", jobids=[1])
    attempt.tell("job_info", jobid=1, rule="a", script="scripts/a.py")
    attempt.fail(1, exit_code=1)
    assert attempt.error() == "Rule a failed: its script scripts/a.py exited with 1"
