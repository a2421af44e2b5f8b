"""Why tasks fail, noted where Snakemake knows it and before it says less."""

import signal
import subprocess
import tokenize
from typing import Any, Optional

from .fields import text

_KILLED = int(signal.SIGKILL)
_PIPE = int(signal.SIGPIPE)
_SHELL_SIGNAL = 128  # bash's exit code for a command that a signal has ended begins here


class Failures:
    """What is known of each failed task's latest try. Written by any thread of the run.

    Of tasks that run together (pipes), the first to fail is the cause; the others were ended for it.
    """

    def __init__(self) -> None:
        self._details: dict[int, dict[str, Any]] = {}
        self._causes: dict[tuple[object, int], dict[str, Any]] = {}  # by group and try
        self._unread: Optional[tuple[str, str]] = None  # noqa: UP045 - an error's words, and what is to be told

    def note(self, job: Any, error: BaseException) -> None:
        details = described(error)
        details["text"] = str(error)
        group = getattr(job, "pipe_group", None)
        if group is not None:
            self._note_in_group((group, job.attempt), details)
        self._details[job.jobid] = details

    def _note_in_group(self, tried: tuple[object, int], details: dict[str, Any]) -> None:
        cause = self._causes.setdefault(tried, details)
        if cause is details:
            return
        if _is_broken_pipe(cause) and not _is_broken_pipe(details) and details.get("exit_signal") != _KILLED:
            # It wrote to one that had ended, and was only noticed first.
            cause["knock_on"] = True
            self._causes[tried] = details
        else:
            details["knock_on"] = True

    def note_words(self, job: Any, message: "object | None", external_id: "object | None") -> None:
        """What an executor says of it."""
        details = self._details.setdefault(job.jobid, {})
        if message is not None:
            details["message"] = text(message)
        if external_id is not None:
            details["external_id"] = text(external_id)

    def note_unread(self, path: str, error: BaseException) -> None:
        """A file of the workflow that Python could make nothing of, where the error does not name it."""
        if isinstance(error, tokenize.TokenError):
            words, (line, _) = error.args
            self._unread = str(error), f'TokenError in file "{path}", line {line}:\n{words}'
        elif isinstance(error, IndentationError) and str(error.filename).startswith("<"):
            told = f'IndentationError in file "{path}", line {error.lineno}:\n{error.msg}:\n{error.text}'
            self._unread = error.msg, told

    def placed(self, message: str) -> str:
        """An error's text; with its place where Snakemake leaves that out, or takes another file's."""
        words, told = self._unread or ("", "")
        return told if words and words in message else message

    def whose(self, message: str) -> "int | None":
        """The task whose failure an error's text is about, if it is about one."""
        for jobid, details in list(self._details.items()):
            if details.get("text") and details["text"] in message:
                return jobid
        return None

    def words(self, jobids: list[int]) -> "str | None":
        """What an executor has said of these tasks' common end."""
        found = (self._details.get(jobid, {}).get("message") for jobid in jobids)
        return next((words for words in found if words), None)

    def take(self, jobid: int) -> dict[str, Any]:
        """What is known; it is about one try, so it is told once."""
        details = self._details.pop(jobid, {})
        details.pop("text", None)
        return details

    def has(self, jobid: int) -> bool:
        return jobid in self._details


def _is_broken_pipe(details: dict[str, Any]) -> bool:
    return details.get("exit_signal") == _PIPE or details.get("exit_code") == _SHELL_SIGNAL + _PIPE


def described(error: BaseException) -> dict[str, Any]:
    """How a command ended, or the exception in its own words."""
    name = type(error).__name__
    cause = error.__cause__ or error.__context__
    is_inner = name == "SpawnedJobError"
    if cause is not None and (is_inner or name == "RuleException"):
        error, name = cause, type(cause).__name__
    if isinstance(error, subprocess.CalledProcessError):
        code = error.returncode
        if code < 0:
            return {"exit_signal": -code}
        # A Snakemake of its own has run it (`run:`, `shadow:`): its 1 is not the command's.
        return {} if is_inner and code == 1 else {"exit_code": code}
    if is_inner:
        return {}
    words = str(error)
    is_ours = name in ("RuleException", "WorkflowError", "MissingOutputException")
    return {"message": text(words if is_ours else f"{name}: {words}" if words else name)}
