"""Finds the first real error in what a run has said: what a person needs, not "a job has failed"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runner.engines.own_words import LOOK_CHARS, shortened, without_internals
from runner.plain_text import MAX_LINE, last_lines, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.ports import RunState
    from runner.tasks import Task, TaskFailure

TAIL_BYTES: Final = 64 * 2**10
_COMMAND_LINES: Final = 6

_JOB_HEADER: Final = re.compile(r"\s*(?:local)?(?:rule|checkpoint) (\w+):")
_DATE: Final = re.compile(r"\s*\[\w{3} \w{3} .{0,20}\d{4}\]")
_USAGE_ERROR: Final = re.compile(r"\w+: error: ")
_CALLED_PROCESS: Final = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
_NOISE: Final = re.compile(
    r"""\s*\[\w{3}\ \w{3}\ .{0,20}\d{4}\].*       # [Tue Nov 24 08:18:21 2026]
    | \s*(?:local)?(?:rule|checkpoint)\ \w+:
    | \ {4,12}(?:input|output|log|jobid|benchmark|reason|wildcards|threads|jobs):.*
    | \ {4,12}(?:priority|resources|message|shell|group):.*
    | Finished\ jobid:.* | \d+\ of\ \d+\ steps\ .*
    | Select\ jobs\ to\ execute.* | Execute\ \d+\ jobs.* | Building\ DAG\ of\ jobs.*
    | Using\ shell:.* | Provided\ (?:cores|resources|remote\ nodes):.* | Rules\ claiming\ more.*
    | Assuming\ unrestricted\ shared.* | Nothing\ to\ be\ done.*
    | SNAKEMAKE | =+ | \ {2}[A-Z][\w ()]*:\ .*    # the header block
    | Job\ stats: | job\s+count | [\s-]+ | \w+\ {2,}\d+
    | mock_snakemake:\ a\ stand-in.*
    | Config\ file\ .*\ is\ extended\ by.*
    | Removing\ output\ files\ of\ failed\ job.*
    | Waiting\ at\ most\ \d+\ seconds\ for\ missing\ files.* | .*\ \(missing\ locally.*\)
    | DAG\ of\ jobs\ will\ be\ updated.* | Updating\ checkpoint\ dependencies.*
    | Will\ exit\ after\ finishing.* | Terminating\ processes\ on\ user.*
    | Shutting\ down,.* | Exiting\ because\ a\ job.* | Complete\ log.*:.* | Elapsed\ time:.*
    | Storing\ output\ in\ storage\. | WorkflowError: | RuleException:
    | Using\ profile\ .*\ for\ setting\ default\ command\ line\ arguments\.
    | SLURM\ run\ ID:.* | MinJobAge\ .* | No\ SLURM\ account\ given.* | No\ account\ was\ given,.*
    | Unable\ to\ guess\ SLURM\ account.* | No\ (?:job\ memory|wall\ time)\ information.*
    | Job\ \d+\ has\ been\ submitted\ with\ SLURM.* | Cleaning\ up\ SLURM\ log\ files.*
    | At\ least\ one\ job\ did\ not\ complete\ successfully.*
    """,
    re.VERBOSE,
)
_GROUP_ERROR: Final = re.compile(r"\s*message: Error in group .*")
_RAISED: Final = re.compile(r"RuleException:|\w+(?:Exception|Error) in rule \w+ in file .*")
# What a run says once its Snakefile has been read: one without any of it has ended before.
_HAS_BEGUN: Final = re.compile(rb"Building DAG of jobs|Nothing to be done|Job stats:|Finished jobid")


def explain(state: RunState, log_tail: bytes) -> str | None:
    """The first real error: the failed rule with its command and the end of its log, or the error's own text.

    A rule without a log of its own is explained by what it wrote to the run's log.
    """
    text = shortened(plain(log_tail[-TAIL_BYTES:].decode("utf-8", "replace")), state.places)
    if state.failure is not None:
        return _of_rule(state.failure, state, text.split("\n"))
    if state.errors:
        return state.errors[0]
    return _end_of_log(text) or None


def unfinished(state: RunState, log_tail: bytes) -> str | None:
    """That a run which says it succeeded did less than there was to do; None for one that did it all."""
    progress = state.progress
    if progress is not None and progress.total > progress.done:
        if b"(100%) done" in log_tail:
            return None  # its events were lost, its tasks were not
        return f"The run exited with 0, and yet only {progress.done} of its {progress.total} tasks are done."
    if progress is None and len(log_tail) < TAIL_BYTES and not _HAS_BEGUN.search(log_tail):
        return "The workflow ended before any rule ran: its Snakefile has ended the run, with exit code 0."
    return None


def written_by(task: Task, log_tail: bytes) -> str:
    """The last lines that a failed task wrote to the run's log; as far as others' can be left out.

    Or to the log of an inner run: of the Snakemake that a cluster runs for the task, where it has number 0.
    """
    lines = plain(log_tail.decode("utf-8", "replace")).split("\n")
    number = task.number if _names(task.number, lines) else 0
    return _written(task.rule, number, lines, has_message=False)[0]


def written_inside(rule: str, log_tail: str) -> str:
    """The last lines that a failed task of this rule wrote to the log of an inner run."""
    return _written(rule, 0, plain(log_tail).split("\n"), has_message=False)[0]


def _of_rule(failure: TaskFailure, state: RunState, log: Sequence[str]) -> str:
    written, what = "", ""
    if not (state.log_lines and failure.what):
        written, what = _written(failure.rule, failure.number, log, has_message=bool(failure.what))
    happened = failure.what or what
    first = f"Rule {failure.rule} failed" + (f" ({failure.wildcards})" if failure.wildcards else "")
    parts = [f"{first}: {happened}" if happened else first]
    if failure.command:
        parts.append(_command(failure.command))
    if state.log_lines:
        parts.append(f"The end of {state.log_path}:\n{state.log_lines}")
    elif written:
        parts.append(f"The end of what it wrote:\n{written}")
    others = state.failures - 1
    if others > 0:
        parts.append("And 1 more task failed." if others == 1 else f"And {others} more tasks failed.")
    return "\n".join(parts)


def _command(command: str) -> str:
    lines = [line.rstrip()[:MAX_LINE] for line in command.split("\n") if line.strip()]
    shown = lines[:_COMMAND_LINES]
    if len(lines) > len(shown):
        shown.append("...")
    return "Its command:\n" + "\n".join(f"    {line.strip()}" for line in shown)


def _end_of_log(text: str) -> str:
    lines = text.split("\n")
    for index, line in enumerate(lines):
        if _USAGE_ERROR.match(line):
            return last_lines("\n".join(lines[index:]))
    return last_lines("\n".join(_without_noise(without_internals(lines))))


def _written(rule: str, number: int, lines: Sequence[str], *, has_message: bool) -> tuple[str, str]:
    """What the task wrote, and how its command ended if the log says so.

    An exception is a part of it, unless what it says is known already.
    """
    start, end = _latest_try(rule, number, lines)
    end = next((i for i in range(start, end) if _GROUP_ERROR.fullmatch(lines[i])), end)
    exception = max((i for i in range(start, end) if _RAISED.fullmatch(lines[i])), default=end)
    written = _without_noise(_without_commands(lines[start:exception]))
    raised = _without_noise(lines[exception:end])
    if not any("CalledProcessError" in line for line in raised):
        return last_lines("\n".join([*written, *([] if has_message else raised)])), ""
    found = _CALLED_PROCESS.search("\n".join(raised))
    what = ""
    if found is not None:
        what = f"its command exited with {found[1]}" if found[1] else f"its command was ended by {found[2]}"
    return last_lines("\n".join(written)), what


def _without_commands(lines: Sequence[str]) -> list[str]:
    """Without what Snakemake says of commands that have failed: here, those of other tasks."""
    kept: list[str] = []
    is_inside = False
    for line in lines:
        is_inside = is_inside or line.startswith("CalledProcessError in file ")
        if not is_inside:
            kept.append(line)
        is_inside = is_inside and not _CALLED_PROCESS.search(line)
    return kept


def _latest_try(rule: str, number: int, lines: Sequence[str]) -> tuple[int, int]:
    """Where it begins, and where its error is told: from the first line to the last if neither is found."""
    told = [i for i, line in enumerate(lines) if line.strip() == f"Error in rule {rule}:"]
    told = [i for i in told if _names(number, lines[i : i + 20])] or told[:1]
    begun = [
        i
        for i, line in enumerate(lines)
        if (found := _JOB_HEADER.fullmatch(line))
        and found[1] == rule
        and _is_dated(lines, i)
        and _names(number, lines[i : i + 20])
    ]
    if not told:
        return begun[-1] if begun else 0, len(lines)
    start = next((i for i in reversed(begun) if i < told[-1]), 0)
    return start, next(i for i in told if i >= start)


def _is_dated(lines: Sequence[str], index: int) -> bool:
    """Whether it heads a task that begins, and not one that is listed."""
    return index > 0 and bool(_DATE.fullmatch(lines[index - 1]))


def _names(number: int, block: Sequence[str]) -> bool:
    return any(line.strip() == f"jobid: {number}" for line in block)


def _without_noise(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not _NOISE.fullmatch(line[:LOOK_CHARS])]
