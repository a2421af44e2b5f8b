"""The first real error is found in what Snakemake and others write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engines.error_text import explain, last_lines
from runner.ports import RunState

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


def failed(log: str, message: str | None = "Rule check failed") -> str | None:
    return explain(RunState(None, message), log.encode())


def test_a_rule_is_explained_by_what_it_wrote() -> None:
    assert failed(SHELL.replace("{stderr}", "no space\nleft\n")) == "Rule check failed\nno space\nleft"


def test_a_silent_rule_is_explained_by_its_exit_code() -> None:
    assert failed(SHELL.replace("{stderr}", "")) == "Rule check failed\nits command exited with 3"


def test_a_rule_whose_command_was_killed_is_explained_by_the_signal() -> None:
    log = SHELL.replace("{stderr}", "").replace(
        "returned non-zero exit status 3.", "died with <Signals.SIGKILL: 9>."
    )
    assert failed(log) == "Rule check failed\nits command was ended by SIGKILL"


def test_an_exception_in_a_run_block_is_told() -> None:
    log = SHELL.replace("{stderr}", "").replace("CalledProcessError in", "ValueError in")
    log = log.replace(
        "Command 'set -euo pipefail;\n        exit 3' returned non-zero exit status 3.", "no such sample"
    )
    found = failed(log)
    assert found is not None
    assert found.splitlines()[-1] == "no such sample"


def test_what_the_rules_own_log_said_is_kept() -> None:
    assert failed(SHELL, "Rule check failed\nwhy") == "Rule check failed\nwhy"


def test_an_error_of_no_rule_is_kept() -> None:
    assert failed("whatever", "MissingRuleException:\nNo rule") == "MissingRuleException:\nNo rule"


def test_wrong_arguments_are_told_without_the_usage() -> None:
    log = "usage: snakemake [--help]\n  [--cores N]\nsnakemake: error: unrecognized arguments: --x\n"
    assert failed(log, None) == "snakemake: error: unrecognized arguments: --x"


def test_without_events_the_end_of_the_log_is_told_without_boilerplate() -> None:
    log = 'Error: Snakefile "x" not found.\nComplete log(s): y\nElapsed time: 0:00:00.1\n'
    assert failed(log, None) == 'Error: Snakefile "x" not found.'


def test_an_empty_log_explains_nothing() -> None:
    assert failed("", None) is None


def test_terminal_sequences_and_control_characters_are_gone() -> None:
    text = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x00\x08\r\nnext\rover\x1b(B"
    assert last_lines(text) == "red plain\nnext\nover(B"


@pytest.mark.parametrize("count", [0, 1, 10, 11, 500])
def test_at_most_ten_lines_are_told(count: int) -> None:
    lines = [f"line {number}" for number in range(count)]
    assert last_lines("\n".join(lines)).splitlines() == lines[-10:]


@given(st.binary(max_size=300))
def test_any_log_gives_an_explanation_that_can_be_stored(log: bytes) -> None:
    for message in (None, "Rule a failed"):
        found = explain(RunState(None, message), log) or ""
        assert "\0" not in found
        assert len(found) < 6000
        found.encode()


def test_a_run_that_was_killed_without_a_word_explains_nothing() -> None:
    log = (
        "Job stats:\njob      count\n-------  -----\nnumbers      1\ntotal        5\n\n"
        + SHELL.split("{stderr}", maxsplit=1)[0]
    )
    assert failed(log.replace("something from the other rule\n", ""), None) is None
