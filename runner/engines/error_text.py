"""Finds the first real error in what a run has said: what a person needs, not "a job has failed"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runner.ports import RunState

_MAX_LINES: Final = 10
_MAX_LINE: Final = 500
_TAIL_BYTES: Final = 64 * 2**10

# CSI and OSC sequences (ECMA-48); then every other control character but tab and newline, and halves of
# surrogate pairs, which no store could keep.
_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_VERDICT: Final = "At least one job did not complete successfully"
_HEADLINE: Final = re.compile(r"Rule (\w+) failed\b.*")
_JOB_HEADER: Final = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):")
_USAGE_ERROR: Final = re.compile(r"\w+: error: ")
_CALLED_PROCESS: Final = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
_NOISE: Final = re.compile(
    r"""\[\w{3}\ \w{3}\ .{0,20}\d{4}\]          # [Tue Nov 24 08:18:21 2026]
    | (?:local)?(?:rule|checkpoint)\ \w+:
    | \ {4}(?:input|output|log|jobid|benchmark|reason|wildcards|threads):.*
    | \ {4}(?:priority|resources|message|shell|group):.*
    | Finished\ jobid:.* | \d+\ of\ \d+\ steps\ .*
    | Select\ jobs\ to\ execute.* | Execute\ \d+\ jobs.* | Building\ DAG\ of\ jobs.*
    | Using\ shell:.* | Provided\ cores:.* | Rules\ claiming\ more.* | Assuming\ unrestricted\ shared.*
    | SNAKEMAKE | =+ | \ {2}[A-Z][\w ()]*:\ .*    # the header block
    | Job\ stats: | job\s+count | [\s-]+ | \w+\ {2,}\d+
    | mock_snakemake:\ a\ stand-in.*
    | Config\ file\ .*\ is\ extended\ by.*
    | Removing\ output\ files\ of\ failed\ job.*
    | Will\ exit\ after\ finishing.* | Terminating\ processes\ on\ user.*
    | Shutting\ down,.* | Exiting\ because\ a\ job.* | Complete\ log.*:.* | Elapsed\ time:.*
    | WorkflowError: | RuleException:
    | At\ least\ one\ job\ did\ not\ complete\ successfully.*
    """,
    re.VERBOSE,
)


def is_verdict(message: str) -> bool:
    """Whether an error only says that another one has happened."""
    return _VERDICT in message


def rule_failed(rule: str, wildcards: str) -> str:
    """The first line of an error that a rule has made."""
    return f"Rule {_clean(rule)} failed ({_clean(wildcards)})" if wildcards else f"Rule {_clean(rule)} failed"


def last_lines(text: str) -> str:
    """The last ten lines that say something, as plain text."""
    lines = [line.rstrip()[:_MAX_LINE] for line in _plain(text).split("\n")]
    return "\n".join([line for line in lines if line.strip()][-_MAX_LINES:])


def explain(state: RunState, log_tail: bytes) -> str | None:
    """The first real error: the failing rule with the end of its log, or else the error's own text.

    A rule without a log of its own is explained by what it wrote to the run's log.
    """
    text = _plain(log_tail[-_TAIL_BYTES:].decode("utf-8", "replace"))
    message = state.error_message
    if message is None:
        return _end_of_log(text) or None
    headline = _HEADLINE.fullmatch(message)  # without a second line: the rule's own log said nothing
    if headline is None:
        return message
    details = _what_the_rule_wrote(text.split("\n"), headline[1])
    return f"{message}\n{details}" if details else message


def _end_of_log(text: str) -> str:
    lines = text.split("\n")
    for index, line in enumerate(lines):
        if _USAGE_ERROR.match(line):
            return last_lines("\n".join(lines[index:]))
    return last_lines("\n".join(_without_noise(lines)))


def _what_the_rule_wrote(lines: list[str], rule: str) -> str:
    end = next((i for i, line in enumerate(lines) if line == f"Error in rule {rule}:"), len(lines))
    headers = (_JOB_HEADER.fullmatch(line) for line in lines[:end])
    start = max((i for i, found in enumerate(headers) if found and found[1] == rule), default=0)
    exception = max((i for i in range(start, end) if lines[i] == "RuleException:"), default=end)
    written = _without_noise(lines[start:exception])
    raised = _without_noise(lines[exception:end])
    if not any("CalledProcessError" in line for line in raised):
        return last_lines("\n".join([*written, *raised]))
    if any(line.strip() for line in written):
        return last_lines("\n".join(written))
    found = _CALLED_PROCESS.search("\n".join(raised))
    if found is None:
        return ""
    return f"its command exited with {found[1]}" if found[1] else f"its command was ended by {found[2]}"


def _without_noise(lines: list[str]) -> list[str]:
    return [line for line in lines if not _NOISE.fullmatch(line)]


def _plain(text: str) -> str:
    return _CONTROL.sub("", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def _clean(text: str) -> str:
    return _plain(text).replace("\n", " ")[:_MAX_LINE]
