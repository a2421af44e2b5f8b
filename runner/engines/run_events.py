"""How a run gets on and what it failed of, by its events: in little memory, whatever they say."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runner.engines import error_text, own_words
from runner.engines.event_lines import MAX_NAME, EventLines, is_count, moment_of, task_numbers
from runner.engines.rule_graph import ToldGraph
from runner.engines.task_details import texts, what_happened
from runner.job_files import open_in_job
from runner.jobs import Progress
from runner.plain_text import clean, last_lines, plain
from runner.ports import RunState
from runner.tasks import TaskFailure, is_of_inner_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.attempt_files import AttemptFiles
    from runner.tasks import MissingInput

_CALL_BYTES: Final = 64 * 2**20  # as much as a well-behaved run writes in all
_OF_A_TASK: Final = "RuleException"  # which an old form of the events tells without the task
_MAX_RUNNING: Final = 10_000
_MAX_FAILED: Final = 10_000
_MAX_ERRORS: Final = 4
_MAX_LOGS: Final = 16
_LOG_BYTES: Final = 32 * 2**10
_COMMAND_CHARS: Final = 4096


class EventsReader:
    """The RunReader of both engines. It keeps a few numbers for each task that runs or has failed."""

    def __init__(self, files: AttemptFiles) -> None:
        self._files = files
        self._places = (files.work, files.directory)
        self._lines = EventLines(files)
        self._total: int | None = None
        self._done: int | None = None
        self._finished = 0
        self._running: dict[int, int] = {}  # number -> the place of what it told of itself
        self._failed: dict[int, tuple[int, int, float]] = {}  # number -> that, the place of its error, when
        self._knock_on: set[int] = set()
        self._errors: list[tuple[str, int | str | None]] = []  # with the rule or the number that each names
        self._missing: tuple[MissingInput, ...] = ()
        self._graph = ToldGraph()

    def advance(self, limit_bytes: int = _CALL_BYTES) -> bool:
        return self._lines.read(self._take, limit_bytes)

    @property
    def state(self) -> RunState:
        return RunState(
            self._progress(),
            self._failure(),
            len(self._failed),
            tuple(at for _, _, at in self._failed.values()),
            tuple(error for error, _ in self._errors),
            self._missing,
            places=self._places,
        )

    def ended(self) -> RunState:
        state = self.state
        path, lines = (None, "") if state.failure is None else self._end_of_log(state.failure)
        return replace(state, log_path=path, log_lines=own_words.shortened(lines, self._places))

    @property
    def progress(self) -> Progress | None:
        return self._progress()

    # ------------------------------------------------------------ one method per event

    def _take(self, event: dict[str, Any], place: int) -> None:
        handler = _HANDLERS.get(event["event"])
        if handler is not None:
            handler(self, event, place)

    def _on_run_info(self, event: dict[str, Any], _place: int) -> None:
        self._set_total(event.get("total"))

    def _on_rule_graph(self, event: dict[str, Any], _place: int) -> None:
        self._graph.take(event)
        self._graph.edges = ()

    def _on_progress(self, event: dict[str, Any], _place: int) -> None:
        done = event.get("done")
        if is_count(done):
            self._done = max(self._done or 0, done)
        self._set_total(event.get("total"))

    def _set_total(self, total: object) -> None:
        if is_count(total):
            self._total = total

    def _on_started(self, event: dict[str, Any], _place: int) -> None:
        for number in task_numbers(event):
            if len(self._running) < _MAX_RUNNING:
                self._running.setdefault(number, 0)
                self._recovered(number)

    def _on_info(self, event: dict[str, Any], place: int) -> None:
        number = event.get("jobid")
        if is_count(number) and number in self._running:
            self._running[number] = place

    def _on_finished(self, event: dict[str, Any], _place: int) -> None:
        number = event.get("jobid")
        if is_count(number):
            self._running.pop(number, None)
            self._recovered(number)
            self._finished += 1

    def _recovered(self, number: int) -> None:
        # Snakemake's own `retries`: the rule that failed is tried again, or has succeeded now.
        if number in self._failed:
            del self._failed[number]
            self._knock_on.discard(number)

    def _on_task_error(self, event: dict[str, Any], place: int) -> None:
        number, rule = event.get("jobid"), event.get("rule")
        if not is_count(number) or not isinstance(rule, str):
            return
        self._errors = [
            (text, of)
            for text, of in self._errors
            if of not in (number, rule[:MAX_NAME]) and not text.startswith(_OF_A_TASK)
        ]
        told = self._running.pop(number, 0)
        if number in self._failed or len(self._failed) < _MAX_FAILED:
            before = self._failed.pop(number, (0, 0, 0.0))  # it is the last word that counts, and its turn
            self._failed[number] = (told or before[0], place, moment_of(event))
            if event.get("knock_on") is True:
                self._knock_on.add(number)

    def _on_group_error(self, event: dict[str, Any], place: int) -> None:
        for number in task_numbers(event):
            if number in self._running and len(self._failed) < _MAX_FAILED:
                self._failed[number] = (self._running.pop(number), place, moment_of(event))

    def _on_error(self, event: dict[str, Any], _place: int) -> None:
        message = event.get("message")
        if not isinstance(message, str) or own_words.is_verdict(message):
            return
        number, rule = event.get("jobid"), event.get("rule")
        of = number if is_count(number) else rule[:MAX_NAME] if isinstance(rule, str) else None
        if len(self._errors) < _MAX_ERRORS:
            self._errors.append((own_words.told(message, self._places), of))
        self._missing = self._missing or own_words.missing_input(message)

    # ------------------------------------------------------------ what it comes to

    def _progress(self) -> Progress | None:
        total = self._total if self._graph.needed is None else self._graph.needed
        if total is None:
            return None
        done = self._finished if self._done is None else self._done
        return Progress(max(total, done), done, len(self._running), len(self._failed), self._graph.up_to_date)

    def _failure(self) -> TaskFailure | None:
        number = next((n for n in self._failed if n not in self._knock_on), None)
        if number is None:
            number = next(iter(self._failed), None)
        if number is None:
            return None
        told_at, failed_at, _ = self._failed[number]
        with self._lines.opened() as fd:
            told, failed = EventLines.at(fd, told_at), EventLines.at(fd, failed_at)
        told = told if told.get("jobid") == number else {}
        rule = failed.get("rule") if isinstance(failed.get("rule"), str) else told.get("rule")
        command = failed.get("shellcmd") or told.get("shellcmd")
        return TaskFailure(
            number,
            clean(rule, MAX_NAME) if isinstance(rule, str) else "of an unknown name",
            own_words.shortened(what_happened(failed, told.get("script")), self._places),
            wildcards=_wildcards(told.get("wildcards")),
            command=plain(command[:_COMMAND_CHARS]) if isinstance(command, str) else None,
            logs=texts(failed.get("log") or told.get("log"))[:_MAX_LOGS],
        )

    def _end_of_log(self, failure: TaskFailure) -> tuple[str | None, str]:
        """The first of its logs that says something, and its last lines."""
        for path in failure.logs:
            text = _end_of_file(self._files, path)
            inside = error_text.written_inside(failure.rule, text) if is_of_inner_run(path) else ""
            if lines := inside or last_lines(text):
                return clean(path.removeprefix(self._files.work + "/"), MAX_NAME), lines
        return None, ""


_HANDLERS: Final[dict[str, Callable[[EventsReader, dict[str, Any], int], None]]] = {
    "run_info": EventsReader._on_run_info,  # noqa: SLF001 - the table belongs to the class
    "rule_graph": EventsReader._on_rule_graph,  # noqa: SLF001
    "progress": EventsReader._on_progress,  # noqa: SLF001
    "job_started": EventsReader._on_started,  # noqa: SLF001
    "job_info": EventsReader._on_info,  # noqa: SLF001
    "job_finished": EventsReader._on_finished,  # noqa: SLF001
    "job_error": EventsReader._on_task_error,  # noqa: SLF001
    "group_error": EventsReader._on_group_error,  # noqa: SLF001
    "error": EventsReader._on_error,  # noqa: SLF001
}


def _wildcards(values: object) -> str:
    pairs = list(values.items())[:8] if isinstance(values, dict) else []
    return clean(", ".join(f"{name}={value}" for name, value in pairs if isinstance(value, str)), MAX_NAME)


def _end_of_file(files: AttemptFiles, path: str) -> str:
    """The end of a plain file below the working directory; empty when it is anything else."""
    within = path.removeprefix(files.work + "/")
    if within.startswith("/"):
        return ""
    names = [name for name in within.split("/") if name not in ("", ".")]
    try:
        fd = open_in_job(files, "/".join((files.work, *names)))
    except (OSError, ValueError):
        return ""
    try:
        size = os.fstat(fd).st_size
        return os.pread(fd, _LOG_BYTES, max(0, size - _LOG_BYTES)).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
